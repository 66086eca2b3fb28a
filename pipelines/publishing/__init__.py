"""What leaves the training machine: weights to share, for diffusers, and without torch, each a format of `export`."""
