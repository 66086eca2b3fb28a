"""Translate image files: one file and streams of them, the manifest of a folder, and a gallery of its results."""
