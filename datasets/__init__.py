"""Where samples come from. Every sampler is seekable: what step s sees is a function of (seed, s) alone."""

from datasets.sampler import Batch, Labelled, Sampler
from datasets.samplers import SAMPLERS, build_sampler, build_samplers, build_source

__all__ = ["SAMPLERS", "Batch", "Labelled", "Sampler", "build_sampler", "build_samplers", "build_source"]
