"""Pictures of what a pipeline does: grids of images, curves, points in the plane, denoising. Needs no training code."""
