"""The parts that a pipeline is put together from, each with its options: samplers and networks, by `kind`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.checks import Checked, Positive, Range

# --- samplers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(Checked):
    """Independent normal values of the pipeline's shape: noise for images, N(mean, std² I) in 2-D."""

    kind: str = field(default="gaussian", init=False)
    mean: float = 0.0
    std: Annotated[float, Positive] = 1.0


@dataclass(frozen=True, kw_only=True)
class GaussianRingConfig(Checked):
    """Equal Gaussians with their means evenly on a circle in the plane; the label is the Gaussian's number."""

    kind: str = field(default="gaussian-ring", init=False)
    modes: Annotated[int, Range(1)] = 8
    radius: Annotated[float, Positive] = 2.0
    std: Annotated[float, Positive] = 0.1


@dataclass(frozen=True, kw_only=True)
class MoonsConfig(Checked):
    """Two interleaved half circles in the plane; the label is the moon's number."""

    kind: str = field(default="moons", init=False)
    noise: Annotated[float, Range(0)] = 0.05
    """Standard deviation of the Gaussian noise added to each point."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Checked):
    """What is done at random to each training image, and to none that is measured or translated."""

    mirrored: bool = False
    """Mirror left to right with probability ½."""
    hidden: Annotated[int, Range(0)] = 0
    """Put a black square this many pixels wide somewhere."""
    shifted: Annotated[int, Range(0, 16)] = 0
    """Move by up to so many pixels down and across, black behind."""


@dataclass(frozen=True, kw_only=True)
class MnistConfig(Checked):
    """Handwritten digits 0–9, 28×28 grey, 60,000 to train on."""

    kind: str = field(default="mnist", init=False)


@dataclass(frozen=True, kw_only=True)
class FashionMnistConfig(Checked):
    """Photographs of ten kinds of garment, 28×28 grey, 60,000 to train on."""

    kind: str = field(default="fashion-mnist", init=False)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class DrawnDigitsConfig(Checked):
    """Stand-ins for MNIST that the project draws itself."""

    kind: str = field(default="drawn-digits", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class DrawnGarmentsConfig(Checked):
    """Stand-ins for FashionMNIST that the project draws itself."""

    kind: str = field(default="drawn-garments", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class Cifar10Config(Checked):
    """Photographs of ten kinds of animals and vehicles, 32×32 in colour, 50,000 to train on."""

    kind: str = field(default="cifar10", init=False)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class SvhnConfig(Checked):
    """House numbers from the street, cut to one digit, 32×32 in colour, 73,257 to train on."""

    kind: str = field(default="svhn", init=False)


@dataclass(frozen=True, kw_only=True)
class DrawnColoursConfig(Checked):
    """Stand-ins for CIFAR10 and SVHN: the drawn garments on 32×32, each in a colour of its own."""

    kind: str = field(default="drawn-colours", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class NoisyConfig(Checked):
    """The target's own images z = x + σ·ε, as a source to be denoised."""

    kind: str = field(default="noisy", init=False)
    sigma: Annotated[float, Range(0)] = 0.5
    """σ where black is 0 and white is 1, as published."""


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(Checked):
    """Your own images: a folder of files, whose sub-folders name classes if all images lie in one."""

    kind: str = field(default="image-folder", init=False)
    root: str = ""
    """The folder."""
    resize: Literal["fit", "fill", "stretch", "none"] = "fit"
    """How an image comes to the pipeline's size: all of it with a border, its middle, distorted, or only if it fits."""
    background: str = "black"
    """Colour under transparent images and of borders: a name such as white, or #rrggbb."""
    cache_mb: Annotated[int, Range(0)] = 2048
    """Decoded images up to this many MB are kept in memory; more are decoded again each epoch, by worker processes."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)


SamplerConfig = (
    GaussianConfig
    | GaussianRingConfig
    | MoonsConfig
    | MnistConfig
    | FashionMnistConfig
    | Cifar10Config
    | SvhnConfig
    | DrawnDigitsConfig
    | DrawnGarmentsConfig
    | DrawnColoursConfig
    | NoisyConfig
    | ImageFolderConfig
)

# --- networks -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PracticalUNetConfig(Checked):
    """A small UNet without normalisation; time is one more input channel. Takes no classes."""

    kind: str = field(default="practical-unet", init=False)
    width: Annotated[int, Range(1, 65536)] = 32
    """Channels at full size; twice as many below."""


@dataclass(frozen=True, kw_only=True)
class CourseUNetConfig(Checked):
    """The courses' UNet with BatchNorm for 28×28 images; takes classes."""

    kind: str = field(default="course-unet", init=False)
    width: Annotated[int, Range(1, 65536)] = 64
    """Hidden channels D."""
    time: Literal["none", "multiply", "add"] = "add"
    """How time enters: not at all, as a scale of the features, or as a shift (with classes, only as a shift)."""


@dataclass(frozen=True, kw_only=True)
class AttentionUNetConfig(Checked):
    """A UNet with GroupNorm, residual blocks and self-attention. Takes no classes."""

    kind: str = field(default="attention-unet", init=False)
    widths: Annotated[tuple[int, ...], Range(1, 65536)] = (32, 64, 128)
    """Channels before the first block and after each block down; multiples of 16."""
    middle: Annotated[int, Range(1, 65536)] = 64
    """Channels of the lowest level."""
    attention: tuple[bool, ...] = (False, True)
    """Whether each block down, and its mirror image up, attends."""
    time_scale: Annotated[float, Positive] = 1.0
    """Factor on t before its sinusoids: 1 as published, where they barely move; 1000 spreads them."""


@dataclass(frozen=True, kw_only=True)
class PatchUNetConfig(Checked):
    """A UNet on 2×2 patches that is quick to train; takes classes."""

    kind: str = field(default="patch-unet", init=False)
    widths: Annotated[tuple[int, ...], Range(1, 65536)] = (48, 96)
    """Channels at half and at a quarter of the size; multiples of 8."""
    blocks: Annotated[tuple[int, ...], Range(1, 64)] = (1, 3)
    """Residual blocks on either way at half the size, and at a quarter."""


@dataclass(frozen=True, kw_only=True)
class MLPConfig(Checked):
    """Three hidden layers for points in the plane; time is one more input. Takes no classes."""

    kind: str = field(default="mlp", init=False)
    width: Annotated[int, Range(1, 65536)] = 128
    """Of each hidden layer."""


ModelConfig = PracticalUNetConfig | CourseUNetConfig | AttentionUNetConfig | PatchUNetConfig | MLPConfig
