"""Measure results: metrics, the real samples they are compared with, classifiers that provide features, and cost."""
