"""Where samples come from. Every sampler can be entered at any step: what it gives is a function of (seed, step)."""
