"""The configuration of a run: frozen dataclasses that say everything a run depends on.

Each field's docstring is its help text on the command line; a range in its annotation is checked whenever
the dataclass is made. Nothing here knows torch, so that `--help` answers at once.
"""

import json
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import dacite

from configs.checks import Checked, Positive, Range, UserError
from configs.parts import AugmentConfig, GaussianConfig, ModelConfig, NoisyConfig, SamplerConfig

SolverName = Literal["euler", "midpoint", "heun", "rk4", "ancestral"]


@dataclass(frozen=True, kw_only=True)
class SolverConfig(Checked):
    """How the trained pipeline is run, unless asked otherwise."""

    name: SolverName = "euler"
    """The first four follow the velocity; ancestral (from noise only) also adds noise at each step, as DDPM does."""
    steps: Annotated[int, Range(1)] = 50
    """Solver steps from source to target."""
    grid_power: Annotated[float, Range(1)] = 1.0
    """p in the time grid t_k = (k/N)^p: 1 is uniform, more puts more of the steps near the source."""
    guidance: Annotated[float, Range(0)] = 1.0
    """w in v = v_uncond + w·(v_cond − v_uncond): 1 plain conditional, 0 unconditional."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """How the network is trained."""

    epochs: Annotated[int, Range(1)] = 10
    """Passes over the target's training images."""
    max_steps: Annotated[int | None, Range(1)] = None
    """Stop after this many optimiser steps, if that comes sooner."""
    minutes: Annotated[float | None, Positive] = None
    """Stop after this much training time, if that comes sooner; the learning-rate schedule fits itself to it."""
    epoch_size: Annotated[int, Range(1)] = 65536
    """Samples that count as one epoch where the target is an endless stream."""
    batch_size: Annotated[int, Range(1)] = 128
    """Global batch: all processes and all accumulated parts together."""
    accumulate: Annotated[int, Range(1)] = 1
    """Parts that each process's share of the batch is cut into, to fit in memory."""
    sync_batchnorm: bool = False
    """BatchNorm, where the network has it, over the batches of all processes, as one process would; slower."""
    loss: Literal["squared", "pseudo-huber"] = "squared"
    """Of a prediction: the mean squared error, as published; or, for each sample, nearly the root of that, which is
    less sensitive to large errors."""
    time_power: Annotated[float, Range(1)] = 1.0
    """p in the training times t = u^p with u uniform: more than 1 puts more of them near the source."""
    source_noise: Annotated[float, Range(0)] = 0.0
    """Standard deviation of Gaussian noise that is added to source samples in training; none is when sampling."""
    optimizer: Literal["adam", "muon"] = "adam"
    """muon: the weights of hidden layers by Muon, the rest by AdamW."""
    lr: Annotated[float, Positive] = 1e-3
    """Learning rate before the schedule."""
    schedule: Literal["constant", "exponential", "linear", "cosine"] = "constant"
    """Decay of the learning rate: none, by a constant factor an epoch, or step by step to `lr-final`."""
    lr_final: Annotated[float, Range(0, 1)] = 0.1
    """What the schedule multiplies the learning rate by at the end of training."""
    warmup_steps: Annotated[int, Range(0)] = 0
    """Steps over which the learning rate first rises linearly from zero, whatever the schedule."""
    clip_norm: Annotated[float | None, Positive] = None
    """Clip the norm of the whole gradient to this; None: not at all."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """Where a loss or a gradient is NaN or infinite: end the run, or leave out the step, count it and go on."""
    ema: Annotated[float | None, Range(0, 1)] = 0.999
    """Decay of the moving average of the weights, which is what is shown and exported; None: no average."""
    label_dropout: Annotated[float, Range(0, 1)] = 0.1
    """Probability that a sample's class is hidden (class-conditioned pipelines)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of forward and backward. auto: accelerate's own setting if it has one, else bf16 on a GPU that has it."""
    threads: Annotated[int, Range(0)] = 0
    """CPU threads a process; 0: this machine's cores, shared among its processes."""
    checkpoint_epochs: Annotated[int, Range(0)] = 1
    """Save the resume state and the weights every so many epochs; 0: not by epoch. The end is always saved."""
    checkpoint_steps: Annotated[int, Range(0)] = 0
    """Save them every so many steps too; 0: not by step."""
    keep_checkpoints: Annotated[int, Range(2)] = 2
    """How many of the newest checkpoints stay."""
    show_epochs: Annotated[int, Range(0)] = 1
    """Evaluate and draw the sheets every so many epochs, and after the first; 0: only at the end."""
    eval_samples: Annotated[int, Range(0)] = 0
    """Test samples to be carried to the target at each evaluation, for their Fréchet distance; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "muon" and self.precision == "fp16":  # which would have to scale gradients it never sees
            raise UserError("precision fp16: found optimizer muon, accepted with it: auto, fp32, bf16")


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    """Everything a run depends on. `shape` and `classes` are what the source, target and network agree on."""

    name: str
    """The pipeline's public name."""
    summary: str
    """What it does, for `list`."""
    source: SamplerConfig
    target: SamplerConfig
    model: ModelConfig
    shape: Annotated[tuple[int, ...], Range(1)] = (1, 28, 28)
    """Of one sample: (channels, height, width), or (2,) in the plane."""
    classes: Annotated[int, Range(0)] = 0
    """Target classes the network is told of; 0: it is told nothing. The null label is this number."""
    read_labels: bool = False
    """Where no class is asked for, a classifier of the source, kept with the weights, reads it off the sample: class k
    of the source asks for class k of the target."""
    path: Literal["linear", "cosine", "ddpm", "one-step"] = "linear"
    """x_t between source and target: (1−t)·x0 + t·x1; cos(πt/2)·x0 + sin(πt/2)·x1; DDPM's √(1−ᾱ)·x0 + √ᾱ·x1 at
    T = 300 noise levels; or x0 alone, from where one step leads to x1."""
    prediction: Literal["velocity", "source", "target"] = "velocity"
    """What the network predicts: dx_t/dt, x0 (the noise ε where the source is Gaussian) or x1 (the clean image)."""
    coupling: Literal["independent", "given", "label", "ot", "label-ot"] = "independent"
    """Which source sample is paired with which target sample: any, its own, any of its label, by minibatch optimal
    transport, or by that within each label."""
    coupling_batches: Annotated[int, Range(1)] = 1
    """Batches that are drawn and coupled at once: transport finds closer pairs in more."""
    allow_unmatched: bool = False
    """Of two image folders with the coupling given: leave out what has no partner of its name, instead of refusing."""
    solver: SolverConfig = field(default_factory=SolverConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    """All randomness is a function of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"\w[\w .+-]*", self.name):  # it becomes a folder's
            raise UserError(f"name: found {self.name!r}, accepted are letters, digits, spaces and . + - _")
        if self.read_labels and not (self.classes and len(self.shape) == 3):
            raise UserError(
                f"read_labels: found {self.classes} classes of samples of shape {self.shape}, accepted are images and "
                "as many classes as the source and the target have"
            )
        if self.solver.name == "ancestral" and self.source != GaussianConfig():
            raise UserError(f"solver ancestral: found {self.source}, accepted is the source {GaussianConfig()}")
        made_of_the_target = isinstance(self.source, NoisyConfig)
        if self.coupling == "given" and not made_of_the_target and augment_of(self.source) != augment_of(self.target):
            raise UserError(
                "coupling given: source and target are augmented differently, accepted is alike: found "
                f"{augment_of(self.source)} and {augment_of(self.target)}"
            )

    @property
    def asked_classes(self) -> int:
        """Classes that whoever uses the pipeline is to ask for: none where it reads them off the source."""
        return 0 if self.read_labels else self.classes

    @property
    def drawn(self) -> bool:
        """Whether any of the data is drawn stand-ins instead of a real data set."""
        return any(part.kind.startswith("drawn-") for part in (self.source, self.target))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Config":
        """The inverse of `to_dict` after a trip through JSON. Unknown, missing and ill-typed entries are refused."""
        try:
            parts = {name: part_from_dict(name, data[name]) for name in PARTS}
            return dacite.from_dict(cls, {**data, **parts}, STRICT)
        except KeyError as error:
            raise UserError(f"configuration: {error} is missing, found {', '.join(data)}") from None
        except (dacite.DaciteError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"not a configuration of this version: {error}") from None


def augment_of(part: SamplerConfig) -> AugmentConfig:
    """How its training images are changed at random; not at all where the kind has no such option."""
    return getattr(part, "augment", AugmentConfig())


def as_it_is(config: Config) -> Config:
    """The same with its training images not augmented."""
    parts = {name: getattr(config, name) for name in ("source", "target")}
    return replace(
        config, **{name: replace(p, augment=AugmentConfig()) for name, p in parts.items() if hasattr(p, "augment")}
    )


def read_config(path: Path) -> Config:
    """The configuration in a `config.json` of a run or of saved weights. Raises UserError with the file's name."""
    try:
        return Config.from_dict(json.loads(path.read_text())["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: no configuration: {error!r}") from error


def choices(union: Any) -> dict[str, Any]:
    """The dataclasses of a union by their `kind`."""
    return {cls.kind: cls for cls in get_args(union)}


PARTS: dict[str, dict[str, Any]] = {
    "source": choices(SamplerConfig),
    "target": choices(SamplerConfig),
    "model": choices(ModelConfig),
}
STRICT = dacite.Config(strict=True, cast=[tuple])


def pick(what: str, name: str, accepted: dict[str, Any]) -> Any:
    """`accepted[name]`, or an error that lists the valid names."""
    if name not in accepted:
        raise UserError(f"unknown {what} {name!r}; accepted: {', '.join(accepted)}")
    return accepted[name]


def part_from_dict(name: str, data: Any) -> Any:
    """A sampler's or a network's configuration: its `kind` says which dataclass the other entries fill."""
    if not isinstance(data, dict):
        raise UserError(f"{name}: found {data!r}, accepted is an object with its kind and options")
    fields_of = dict(data)
    return dacite.from_dict(pick(f"{name} kind", fields_of.pop("kind", ""), PARTS[name]), fields_of, STRICT)
