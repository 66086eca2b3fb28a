"""Let a trained pipeline, the teacher, translate the source samples that its student is trained on, and keep the pairs.

A file holds a block of pairs. Its name follows from all that decides what is in it, so that runs share files and go on
where one was broken off.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from flowferry.configs.locations import pairs_folder
from flowferry.configs.recipe import OdeSolverName
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.made_pairs import MadePairs, from_stored, to_stored
from flowferry.datasets.rng import content_rows, derive_seed, generator
from flowferry.pipelines.hardware import run_precision
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import prepare_folder
from flowferry.pipelines.storage.hub import find_weights

log = logging.getLogger("flowferry")

BLOCK = 1024  # pairs in a file
HELD_OUT = 1024  # pairs of the test split


def with_teacher_hash(config: Config) -> Config:
    """Return `config` with the hash of its teacher's weights, if it has one. Raises UserError where there are none."""
    if not config.has_teacher:
        return config
    found = weights.digest(find_weights(config.teacher.pipeline))
    return replace(config, teacher=replace(config.teacher, sha256=found))


class Teacher:
    """The teacher of the run of `config` in `folder`.

    Raises UserError where there are no weights, or where teacher and student are not for the same samples and classes.
    """

    def __init__(self, config: Config, folder: Path, device: torch.device) -> None:
        asked = config.teacher
        self.config, self.folder = config, pairs_folder(folder)
        self.precision = run_precision("auto", device)
        teacher = Pipeline.from_pretrained(asked.pipeline, device=device, precision=self.precision)
        for what in ("shape", "num_classes"):
            got, expected = getattr(teacher.config, what), getattr(config, what)
            if got != expected:
                raise UserError(f"--teacher.pipeline: got {asked.pipeline} with {what} {got}, expected {expected}")
        asked_for: dict[str, Any] = {"solver": asked.solver, "steps": asked.steps, "guidance": asked.guidance}
        self.pipeline = teacher.using(**asked_for, source_noise=config.train.source_noise)
        if (solver := self.pipeline.config.solver).adds_noise:
            odes = ", ".join(get_args(OdeSolverName))
            raise UserError(f"--teacher.solver: got {solver.name}, whose results differ by chance, expected {odes}")

    def describe(self) -> str:
        """Return which teacher this is and how it is run, in a few words."""
        teacher = self.config.teacher
        return f"{teacher.pipeline} ({teacher.sha256[:12]}), {self.pipeline.sampling}"

    def same_network(self) -> nn.Module | None:
        """Return the teacher's network, from which the student starts; None where the student's is another one."""
        ours, own = self.config, self.pipeline.config
        same = all(getattr(ours, name) == getattr(own, name) for name in ("model", "prediction", "path"))
        return self.pipeline.model if same else None

    # --- pairs ---------------------------------------------------------------------------------------

    def pairs(self, source: Sampler, count: int, split: str) -> "TeacherPairs":
        """Return the `count` pairs of a split, of which some may have to be made first. source: the split's samples."""
        return TeacherPairs(self, source, count, split)

    def held_out(self, source: Sampler) -> "TeacherPairs":
        """Return the pairs on which the held-out loss is measured. source: the samples of the test split."""
        return self.pairs(source, min(HELD_OUT, source.size or HELD_OUT), "test")

    def make(self, source: Sampler, seed: int, number: int, size: int) -> dict[str, Tensor]:
        """Return pairs number·size … (number + 1)·size of the stream of `seed`, as they are kept."""
        stored = to_stored(source.draw(size, seed=seed, step=number).samples, are_images=self.are_images)
        x0 = from_stored(stored)
        labels = self.labels(x0, seed, number)
        x1 = self.pipeline.translate(x0, labels, seed=self.config.seed, rows=content_rows(x0))
        kept = {"source": stored, "target": to_stored(x1, are_images=self.config.is_image)}
        return kept if labels is None else kept | {"labels": labels}

    @property
    def are_images(self) -> bool:
        """Whether source samples are images in [-1, 1]: neither noise nor images with noise on them."""
        source = self.config.source
        return self.config.is_image and not (source.is_noise or source.from_target)

    def labels(self, x0: Tensor, seed: int, number: int) -> Tensor | None:
        """Return the class to ask for with each sample, int64 [B]: inferred, or any, or none; None without classes."""
        if not (classes := self.config.num_classes):
            return None
        g = generator(x0.device, seed, "labels", number)
        labels = self.pipeline.inferred_labels(x0)
        if labels is None:
            labels = torch.randint(classes, (len(x0),), generator=g, device=x0.device)
        dropped = torch.rand(len(x0), generator=g, device=x0.device) < self.config.train.label_dropout
        return torch.where(dropped, classes, labels)


@dataclass(frozen=True, eq=False)
class TeacherPairs:
    """The pairs of one split, in files of `BLOCK` pairs."""

    teacher: Teacher
    source: Sampler
    count: int
    split: str

    @property
    def seed(self) -> int:
        """The seed of the source samples, their noise and their labels."""
        return derive_seed(self.teacher.config.seed, "teacher", self.split)

    @property
    def size(self) -> int:
        """Pairs in a file."""
        return min(BLOCK, self.count)

    @cached_property
    def files(self) -> list[Path]:
        """The files, in a folder whose name is a hash of all that decides what is in them."""
        config, solver = self.teacher.config, self.teacher.pipeline.config.solver
        first = to_stored(
            self.source.draw(self.size, seed=self.seed, step=0).samples, are_images=self.teacher.are_images
        )
        decisive = {
            "teacher": config.teacher.sha256,
            "solver": asdict(solver),
            "precision": self.teacher.precision,
            "source": sha256(first.cpu().numpy().tobytes()).hexdigest(),
            "label_dropout": config.train.label_dropout,
            "seed": [config.seed, self.split],
            "size": self.size,
        }
        name = sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        return [self.teacher.folder / name / f"{k:05d}.safetensors" for k in range(-(-self.count // self.size))]

    def make(self, *, rank: int = 0, of: int = 1) -> None:
        """Make those that are not there yet; of several processes, each makes its share."""
        missing = [(k, file) for k, file in enumerate(self.files) if k % of == rank and not file.is_file()]
        if not missing:
            return
        prepare_folder(missing[0][1].parent, "the folder of the teacher's pairs")
        unit = f" × {self.size} pairs"
        for k, file in tqdm(missing, desc=f"teacher ({self.split})", unit=unit, dynamic_ncols=True, disable=rank > 0):
            made = self.teacher.make(self.source, self.seed, k, self.size)
            weights.save_tensors(file, made, {"block": str(k)}, shared=True)

    def load(self) -> MadePairs:
        """Return them; all were made. Raises UserError naming a file that is broken."""
        return self._joined((read(file, self.teacher.pipeline.device) for file in self.files), self.count)

    def make_in_memory(self) -> MadePairs:
        """Return the first of them, as many as a file holds, made now and not kept."""
        return self._joined([self.teacher.make(self.source, self.seed, 0, self.size)], self.size)

    def _joined(self, parts: Iterable[dict[str, Tensor]], count: int) -> MadePairs:
        """Return the first `count` pairs of files, copied one after the other: they are not all in memory twice."""
        joined: dict[str, Tensor] = {}
        for start, part in zip(range(0, count, self.size), parts, strict=True):
            joined = joined or {name: kept.new_empty(count, *kept.shape[1:]) for name, kept in part.items()}
            for name, whole in joined.items():
                rows = whole[start : start + self.size]
                rows.copy_(part[name][: len(rows)])
        return MadePairs(joined["source"], joined["target"], joined.get("labels"), self.teacher.config.num_classes)


def read(file: Path, device: torch.device) -> dict[str, Tensor]:
    """Return the tensors of a file of pairs. Raises UserError where it is broken."""
    try:
        return load_file(file, device=str(device))
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file}: not a whole file of a teacher's pairs ({error}); delete it to make it again"
        ) from error
