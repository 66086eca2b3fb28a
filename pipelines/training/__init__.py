"""The parts of `train`: the step on the device, its batches and schedules, progress, logs, signals and processes."""
