"""Networks, each with its options, by `kind`. What they can do is stated in their classes: models/base.py."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from flowferry.configs.validation import Positive, Range, Validated


@dataclass(frozen=True, kw_only=True)
class PracticalUNetConfig(Validated):
    """A small UNet without normalization; time is one more input channel. Takes no classes."""

    kind: Literal["practical-unet"] = field(default="practical-unet", init=False)
    width: Annotated[int, Range(1, 65536)] = 32
    """Channels at full size; twice as many below."""


@dataclass(frozen=True, kw_only=True)
class CourseUNetConfig(Validated):
    """The courses' UNet with BatchNorm for 28×28 images; takes classes."""

    kind: Literal["course-unet"] = field(default="course-unet", init=False)
    width: Annotated[int, Range(1, 65536)] = 64
    """Hidden channels D."""
    time: Literal["none", "multiply", "add"] = "add"
    """How time enters: not at all, as a scale of the features, or as a shift (with classes, only as a shift)."""


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig(Validated):
    """A UNet with GroupNorm, residual blocks and self-attention. Takes no classes."""

    kind: Literal["attention-unet"] = field(default="attention-unet", init=False)
    widths: Annotated[tuple[int, ...], Range(1, 65536)] = (32, 64, 128)
    """Channels before the first block and after each block down; multiples of 16."""
    middle: Annotated[int, Range(1, 65536)] = 64
    """Channels of the lowest level."""
    attention: tuple[bool, ...] = (False, True)
    """Whether each block down, and its mirror image up, attends."""
    time_scale: Annotated[float, Positive] = 1.0
    """Factor on t before its sinusoids: 1 as published, where they barely move; 1000 spreads them."""


@dataclass(frozen=True, kw_only=True)
class PatchUNetConfig(Validated):
    """A UNet on 2×2 patches that is quick to train; takes classes."""

    kind: Literal["patch-unet"] = field(default="patch-unet", init=False)
    widths: Annotated[tuple[int, ...], Range(1, 65536)] = (48, 96)
    """Channels at half the size, at a quarter, and so on, at two levels or more; multiples of 8."""
    blocks: Annotated[tuple[int, ...], Range(1, 64)] = (1, 3)
    """Residual blocks at each of these levels, down and again up; at the lowest only once."""
    sees_source: bool = False
    """Show it the source image beside x_t, so that a result keeps to its own source; it then runs forward only."""
    adds_source: bool = False
    """Add the source image to the output, so that the network learns what is to change; needs `sees_source`."""
    two_times: bool = False
    """Tell it the end of a step beside its start, as the objective map needs: it answers their mean velocity."""


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Validated):
    """Three hidden layers for points in the plane; time is one more input. Takes no classes."""

    kind: Literal["mlp"] = field(default="mlp", init=False)
    width: Annotated[int, Range(1, 65536)] = 128
    """Units of each hidden layer."""


@dataclass(frozen=True, kw_only=True)
class DiffusersConfig(Validated):
    """A UNet of the library diffusers, which is loaded as it is and not trained here; takes classes that are texts."""

    kind: Literal["diffusers"] = field(default="diffusers", init=False)
    unet: str = ""
    """Its class there."""
    folder: str = ""
    """The folder of its pipeline."""
    prompts: tuple[str, ...] = ()
    """The text that each class stands for; the null label stands for the empty text."""


ModelConfig = PracticalUNetConfig | CourseUNetConfig | AttentionUNetConfig | PatchUNetConfig | MLPConfig
