"""The configuration of a run: frozen dataclasses that say everything a run depends on.

Each field's docstring is its help text on the command line; a range in its annotation is checked whenever the dataclass
is made. Nothing here imports torch, so that `--help` answers at once.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import dacite

from flowferry.configs.components import GaussianConfig, SamplerConfig, check_alike
from flowferry.configs.networks import DiffusersConfig, ModelConfig
from flowferry.configs.recipe import SolverConfig, TeacherConfig, TrainConfig
from flowferry.configs.renames import RENAMED_KINDS, with_current_names
from flowferry.configs.validation import Range, UserError, Validated

SMALLEST_JUDGED = 8  # pixels of an image's shorter side, of which a critic makes one score


@dataclass(frozen=True, kw_only=True)
class Config(Validated):
    """Everything a run depends on. Source, target and network agree on `shape` and `num_classes`."""

    name: str
    """The pipeline's public name."""
    summary: str
    """What it does, for `list`."""
    source: SamplerConfig
    target: SamplerConfig
    model: ModelConfig | DiffusersConfig
    shape: Annotated[tuple[int, ...], Range(1)] = (1, 28, 28)
    """Shape of one sample: (channels, height, width), or (2,) in the plane."""
    num_classes: Annotated[int, Range(0)] = 0
    """Target classes that the network is conditioned on; 0: none. The null label is this number."""
    infer_labels: bool = False
    """Where no class is asked for, ask for the source sample's own, by a classifier that is kept with the weights."""
    objective: Literal["flow", "one-step", "map"] = "flow"
    """What the network is trained for: the flow along the path at all of its times, one step from x0 to x1, or the flow
    and steps of any length along it (with `model.two-times`)."""
    path: Literal["linear", "cosine", "ddpm", "one-step"] = "linear"
    """x_t between source and target: linear (1−t)·x0 + t·x1, cosine cos(πt/2)·x0 + sin(πt/2)·x1, or
    ddpm √(1−ᾱ)·x0 + √ᾱ·x1 at 300 noise levels, or at those of a pretrained network. one-step is short for that
    objective, any other for the objective flow."""
    prediction: Literal["velocity", "source", "target", "v-prediction"] = "velocity"
    """What the network predicts at x_t = α·x0 + β·x1: dx_t/dt, x0 (the noise ε where the source is Gaussian), x1 (the
    clean image), or β·x0 − α·x1."""
    coupling: Literal["independent", "given", "label", "ot", "label-ot", "content-ot", "teacher"] = "independent"
    """How source and target samples are paired: independently, each with its own partner, by label, by minibatch
    optimal transport, by it within each label, or by it between what the images show (coarse colors and edges). Or
    teacher: each source sample with what a trained pipeline makes of it."""
    coupling_batches: Annotated[int, Range(1)] = 1
    """Batches that are drawn and coupled at once: transport finds closer pairs in more."""
    allow_unmatched: bool = False
    """With the coupling given between two image folders: leave out images without a partner instead of refusing."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    """All randomness is a function of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path == "one-step":
            object.__setattr__(self, "path", "linear")
            object.__setattr__(self, "objective", "one-step")
        if not re.fullmatch(r"\w[\w .+-]*", self.name):  # it becomes the name of a folder
            raise UserError(f"name: got {self.name!r}, expected letters, digits, spaces and . + - _")
        if self.infer_labels and not (self.num_classes and self.is_image):
            raise UserError(
                f"infer_labels: got {self.num_classes} classes of samples of shape {self.shape}, expected images and "
                "as many classes as the source and the target have"
            )
        if self.solver.adds_noise and not self.starts_from_unit_noise:
            raise UserError(f"solver {self.solver.name}: got {self.source}, expected the source {GaussianConfig()}")
        if self.solver.source_noise and self.source.is_noise:
            raise UserError(f"solver source_noise: got the source {self.source.kind}, expected images")
        if self.has_teacher and not self.teacher.pipeline:
            raise UserError("coupling teacher: got no teacher, expected teacher.pipeline")
        if self.teacher.pipeline and not self.has_teacher:
            got = f"the teacher {self.teacher.pipeline}"
            raise UserError(f"coupling {self.coupling}: got {got}, expected the coupling teacher")
        if self.train.adversary and not (self.is_image and min(self.shape[1:]) >= SMALLEST_JUDGED):
            got = f"{self.train.adversary:g} for samples of shape {self.shape}"
            raise UserError(f"train adversary: got {got}, expected images of {SMALLEST_JUDGED} pixels or more")
        if self.coupling == "content-ot" or (self.is_paired and not self.source.from_target):
            check_alike(self.coupling, self.source, self.target)

    @property
    def is_image(self) -> bool:
        """Whether samples are images (C, H, W) in [-1, 1], not points in the plane."""
        return len(self.shape) == 3

    @property
    def is_paired(self) -> bool:
        """Whether each source sample comes with its own target sample."""
        return self.coupling == "given"

    @property
    def has_teacher(self) -> bool:
        """Whether it is trained on what another pipeline makes of source samples."""
        return self.coupling == "teacher"

    @property
    def starts_from_unit_noise(self) -> bool:
        """Whether the source is N(0, I)."""
        return self.source == GaussianConfig()

    @property
    def asked_classes(self) -> int:
        """Classes that the user of the pipeline can ask for; 0 where it has none or infers them from the source."""
        return 0 if self.infer_labels else self.num_classes

    @property
    def is_synthetic(self) -> bool:
        """Whether any of the data is a synthetic stand-in instead of a real data set."""
        return self.source.is_synthetic or self.target.is_synthetic

    def to_dict(self) -> dict[str, Any]:
        """Return nested dictionaries that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Config":
        """Invert `to_dict`, also for names of older versions. Raises UserError for wrong or missing entries."""
        try:
            data = with_current_names(data)
            components = {name: component_from_dict(name, data[name]) for name in COMPONENTS}
            return dacite.from_dict(cls, {**data, **components}, STRICT)
        except KeyError as error:
            raise UserError(f"configuration: {error} is missing, got {', '.join(data)}") from None
        except (dacite.DaciteError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"not a configuration of this version: {error}") from None


def read_config(path: Path) -> Config:
    """Read the configuration in a `config.json` of a run or of saved weights. Raises UserError naming the file."""
    try:
        return Config.from_dict(json.loads(path.read_text())["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: no configuration: {error!r}") from error


def by_kind(union: Any) -> dict[str, Any]:
    """Return the dataclasses of a union by their `kind`."""
    return {cls.kind: cls for cls in get_args(union)}


COMPONENTS: dict[str, dict[str, Any]] = {
    "source": by_kind(SamplerConfig),
    "target": by_kind(SamplerConfig),
    "model": by_kind(ModelConfig),
}
STRICT = dacite.Config(strict=True, cast=[tuple])


def pick_component(what: str, name: str, kind: str) -> Any:
    """Return the dataclass of a kind of "source", "target" or "model". Raises UserError listing the valid kinds."""
    kind, kinds = RENAMED_KINDS.get(kind, kind), COMPONENTS[name]
    if kind not in kinds:
        raise UserError(f"unknown {what}: got {kind!r}, expected one of {', '.join(kinds)}")
    return kinds[kind]


def component_from_dict(name: str, data: Any) -> Any:
    """Return the component `name` whose `kind` says which dataclass the other entries of `data` fill."""
    if not isinstance(data, dict):
        raise UserError(f"{name}: got {data!r}, expected an object with its kind and options")
    options = dict(data)
    return dacite.from_dict(pick_component(f"{name} kind", name, options.pop("kind", "")), options, STRICT)
