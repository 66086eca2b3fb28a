"""The data of a run: what its batches are drawn from, what it is measured on, and where its network starts."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_splits, usable_images
from flowferry.pipelines.training import image_lists
from flowferry.pipelines.training.distributed import Processes
from flowferry.pipelines.training.image_lists import ImageLists
from flowferry.pipelines.training.teacher import Teacher, TeacherPairs

SourceAndTarget = tuple[Sampler, Sampler]


class TrainingData(NamedTuple):
    """Everything a run reads."""

    pairs: SourceAndTarget
    """What batches are drawn from."""
    held_out: SourceAndTarget
    """What the held-out loss is measured on."""
    target: Sampler
    """The target's training split."""
    test: SourceAndTarget
    """The test split, on which results are measured."""
    images: ImageLists
    """The files of its image folders."""
    start: nn.Module | None
    """The network whose weights training starts from; None: random ones."""


def load(config: Config, folder: Path, data_root: Path, processes: Processes, *, dry_run: bool = False) -> TrainingData:
    """Load the data of the run in `folder`; with a teacher, make its pairs where they are missing.

    dry_run: make a batch of a teacher's pairs and keep nothing.
    Raises UserError where the data is missing or does not go together.
    """
    device = processes.accelerator.device
    usable = processes.on_main(partial(usable_images, config))
    splits = partial(build_splits, config, splits=("train", "test"), data_root=data_root, device=device, usable=usable)
    train, test = processes.main_first(splits)
    images = image_lists.list_images(config, usable)
    if not config.has_teacher:
        return TrainingData(train, test, train[1], test, images, start=None)
    teacher = Teacher(config, folder, device)
    start = teacher.same_network()
    processes.log_main("the teacher: %s", teacher.describe())
    if start is None:
        processes.log_main("the student's network is another one, and starts from random weights")
    if dry_run:
        few = teacher.pairs(train[0], config.train.batch_size, "train").make_in_memory().sides
        return TrainingData(few, few, train[1], test, images, start)
    pairs = made(teacher.pairs(train[0], config.teacher.pairs, "train"), processes)
    held_out = made(teacher.held_out(test[0]), processes)
    return TrainingData(pairs, held_out, train[1], test, images, start)


def made(pairs: TeacherPairs, processes: Processes) -> SourceAndTarget:
    """Return a teacher's pairs, of which each process makes its share where they are missing."""
    rank, size = processes.accelerator.process_index, processes.accelerator.num_processes
    processes.log_main("%s pairs (%s): %s", f"{pairs.count:,}", pairs.split, pairs.files[0].parent)
    pairs.make(rank=rank, of=size)
    processes.accelerator.wait_for_everyone()
    pairs.make()  # on machines that do not share a disk
    return pairs.load().sides
