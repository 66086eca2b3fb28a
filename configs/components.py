"""Sources and targets, each with its options, by `kind`. Networks are in networks.py.

What other code must know about a component is a field of its class, so that nothing compares kinds by name.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Optional

from flowferry.configs.images import ReadConfig
from flowferry.configs.layouts import check_layout
from flowferry.configs.validation import Positive, Range, UserError, Validated


@dataclass(frozen=True, kw_only=True)
class SamplerComponent(Validated):
    """The capabilities of a source or target; a kind states those in which it differs."""

    is_noise: ClassVar[bool] = False
    """Whether its samples are Gaussian noise, which is not worth a picture and leaves [-1, 1]."""
    from_target: ClassVar[bool] = False
    """Whether each of its samples is made from its partner in the target. Such a kind can only be a source."""
    is_synthetic: ClassVar[bool] = False
    """Whether this project draws its samples in place of a real data set."""
    mirror_invariant: ClassVar[bool] = False
    """Whether a sample mirrored left to right is as good as the original."""
    stand_in: ClassVar[Optional["SamplerComponent"]] = None
    """The synthetic data that takes its place in a smoke test (`--quick`); None where it needs no files."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Validated):
    """Random changes to each training image; images that are measured or translated are left as they are."""

    mirrored: bool = False
    """Mirror left to right with probability ½."""
    cutout: Annotated[int, Range(0)] = 0
    """Cover a random square, this many pixels wide, with black."""
    shifted: Annotated[int, Range(0, 16)] = 0
    """Shift by up to this many pixels vertically and horizontally."""
    behind: Literal["black", "mirror"] = "black"
    """What a shift leaves behind: black, or the image mirrored at its edge."""
    zoomed: Annotated[float, Range(1, 4)] = 1.0
    """Enlarge a part of the image, chosen at random, to the whole, by a random factor of up to this."""

    @property
    def changes(self) -> bool:
        """Whether images are changed at all."""
        return bool(self.mirrored or self.cutout or self.shifted or self.zoomed > 1)


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(SamplerComponent):
    """Independent normal values of the pipeline's shape: noise for images, N(mean, std² I) in the plane."""

    is_noise: ClassVar[bool] = True
    kind: Literal["gaussian"] = field(default="gaussian", init=False)
    mean: float = 0.0
    std: Annotated[float, Positive] = 1.0


@dataclass(frozen=True, kw_only=True)
class GaussianRingConfig(SamplerComponent):
    """Equal Gaussians whose means lie evenly on a circle in the plane; the label is the Gaussian's number."""

    kind: Literal["gaussian-ring"] = field(default="gaussian-ring", init=False)
    modes: Annotated[int, Range(1)] = 8
    radius: Annotated[float, Positive] = 2.0
    std: Annotated[float, Positive] = 0.1


@dataclass(frozen=True, kw_only=True)
class MoonsConfig(SamplerComponent):
    """Two interleaved half circles in the plane; the label is the moon's number."""

    kind: Literal["moons"] = field(default="moons", init=False)
    noise: Annotated[float, Range(0)] = 0.05
    """Standard deviation of the Gaussian noise added to each point."""


@dataclass(frozen=True, kw_only=True)
class SyntheticDigitsConfig(SamplerComponent):
    """Stand-ins for MNIST that the project draws itself."""

    is_synthetic: ClassVar[bool] = True
    kind: Literal["synthetic-digits"] = field(default="synthetic-digits", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class SyntheticGarmentsConfig(SamplerComponent):
    """Stand-ins for FashionMNIST that the project draws itself."""

    is_synthetic: ClassVar[bool] = True
    mirror_invariant: ClassVar[bool] = True
    kind: Literal["synthetic-garments"] = field(default="synthetic-garments", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class SyntheticColorsConfig(SamplerComponent):
    """Stand-ins for color pictures: the synthetic garments, each in a color of its own, at any size."""

    is_synthetic: ClassVar[bool] = True
    mirror_invariant: ClassVar[bool] = True
    kind: Literal["synthetic-colors"] = field(default="synthetic-colors", init=False)
    count: Annotated[int, Range(1)] = 4096


@dataclass(frozen=True, kw_only=True)
class MnistConfig(SamplerComponent):
    """Handwritten digits 0–9, 28×28 gray, 60,000 to train on."""

    stand_in: ClassVar[SamplerComponent] = SyntheticDigitsConfig()
    kind: Literal["mnist"] = field(default="mnist", init=False)


@dataclass(frozen=True, kw_only=True)
class FashionMnistConfig(SamplerComponent):
    """Photographs of ten kinds of garment, 28×28 gray, 60,000 to train on."""

    mirror_invariant: ClassVar[bool] = True
    stand_in: ClassVar[SamplerComponent] = SyntheticGarmentsConfig()
    kind: Literal["fashion-mnist"] = field(default="fashion-mnist", init=False)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class Cifar10Config(SamplerComponent):
    """Photographs of ten kinds of animals and vehicles, 32×32 in color, 50,000 to train on."""

    mirror_invariant: ClassVar[bool] = True
    stand_in: ClassVar[SamplerComponent] = SyntheticColorsConfig()
    kind: Literal["cifar10"] = field(default="cifar10", init=False)
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True, kw_only=True)
class SvhnConfig(SamplerComponent):
    """House numbers from the street, cropped to one digit, 32×32 in color, 73,257 to train on."""

    stand_in: ClassVar[SamplerComponent] = SyntheticColorsConfig()
    kind: Literal["svhn"] = field(default="svhn", init=False)


@dataclass(frozen=True, kw_only=True)
class NoisyConfig(SamplerComponent):
    """The target's own images plus noise, z = x + σ·ε, as a source to be denoised."""

    from_target: ClassVar[bool] = True
    kind: Literal["noisy"] = field(default="noisy", init=False)
    sigma: Annotated[float, Range(0)] = 0.5
    """σ on the published scale, where black is 0 and white is 1."""


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(ReadConfig, SamplerComponent):
    """Your own images: a folder of files. Its sub-folders name the classes if every image lies in one."""

    stand_in: ClassVar[SamplerComponent] = SyntheticColorsConfig()
    kind: Literal["image-folder"] = field(default="image-folder", init=False)
    root: str = ""
    """The folder."""
    layout: str = "auto"
    """Which of its files are this side's, as a pattern of their paths without endings: {name} is what partners have in
    common, {split} is train, val or test, and a [left] or [right] at the end takes that half of each picture. So
    {name}_A, {split}A/{name}, A/{split}/{name}, {name}[left]. Or A or B, left or right: the pattern of the first or the
    second side is found in the folder; auto does so too, A for the source and B for the target where both have the same
    folder."""
    shorter_side: Annotated[int, Range(0)] = 0
    """With the resize crop: scale each image first so that its shorter side has this many pixels; 0: do not scale."""
    classes: tuple[str, ...] = ()
    """Names of the sub-folders in the order of their labels; none: alphabetical, but numbers by their value."""
    follow_links: bool = False
    """Follow symbolic links to folders, and to files outside the folder, too; otherwise they are passed over."""
    cache_mb: Annotated[int, Range(0)] = 2048
    """Keep decoded images in memory up to this many MB; beyond it, threads decode them again each epoch."""
    on_bad_file: Literal["stop", "skip"] = "stop"
    """When an image file cannot be read: stop and name it, or leave it out; for that, all files are decoded once before
    the first step."""
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(behind="mirror"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layout(self.layout)


SamplerConfig = (
    GaussianConfig
    | GaussianRingConfig
    | MoonsConfig
    | MnistConfig
    | FashionMnistConfig
    | Cifar10Config
    | SvhnConfig
    | SyntheticDigitsConfig
    | SyntheticGarmentsConfig
    | SyntheticColorsConfig
    | NoisyConfig
    | ImageFolderConfig
)


def augmentation_of(component: SamplerConfig) -> AugmentConfig:
    """Return how a component's training images are changed at random: not at all where it has no such option."""
    return getattr(component, "augment", AugmentConfig())


def check_alike(coupling: str, source: SamplerConfig, target: SamplerConfig) -> None:
    """Raise UserError where the two sides of pairs would be changed at random or cropped in other ways."""
    one, other = augmentation_of(source), augmentation_of(target)
    if one != other and (one.changes or other.changes):
        raise UserError(f"coupling {coupling}: got {one} and {other}, expected both to be augmented alike")
    crops = [(getattr(side, "resize", ""), getattr(side, "shorter_side", 0)) for side in (source, target)]
    if crops[0] != crops[1] and "crop" in (crops[0][0], crops[1][0]):
        got = " and ".join(f"resize {resize} with shorter_side {side}" for resize, side in crops)
        raise UserError(f"coupling {coupling}: got {got}, expected both to be cropped alike")
