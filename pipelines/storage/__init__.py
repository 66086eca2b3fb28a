"""What is kept on disk and shared: whole files, weights that describe themselves, checkpoints, the hub. No pickle."""
