"""The checkpoints of a run: what is saved in them, and on which conditions a run goes on from one."""

import logging
from pathlib import Path

from flowferry.configs.diff import refuse_changes
from flowferry.configs.schema import Config, read_config
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import checkpoint
from flowferry.pipelines.training.best import BestWeights
from flowferry.pipelines.training.distributed import Processes
from flowferry.pipelines.training.image_lists import ImageLists, changes
from flowferry.pipelines.training.logger import last_evaluated
from flowferry.pipelines.training.progress import Progress
from flowferry.pipelines.training.step import TrainStep

log = logging.getLogger("flowferry")


class Checkpoints:
    """The checkpoints in the folder of a run.

    images: the image files that it is trained on, which are listed in each checkpoint; best: the weights that are kept
    beside them.
    """

    def __init__(self, folder: Path, config: Config, images: ImageLists) -> None:
        self.run, self.folder, self.config, self.images = folder, folder / "checkpoints", config, images
        self.best = BestWeights(folder, config.train.best)

    @property
    def last(self) -> Path | None:
        """The newest one."""
        return next(iter(checkpoint.published(self.folder)), None)

    def save(self, train_step: TrainStep, progress: Progress) -> None:
        """Publish the one of the last step that was taken."""
        state = progress.state() | train_step.state() | self.best.state() | {"images": self.images}
        keep = self.config.train.keep_checkpoints
        checkpoint.save(self.folder, progress.step, train_step.tensors(), state, keep=keep)

    def resume(
        self, processes: Processes, train_step: TrainStep, progress: Progress, *, allow_changed_data: bool
    ) -> None:
        """Resume from the newest intact checkpoint, on all processes.

        Raises UserError if it is another run's, or if it was trained on other image files and that is not allowed.
        """
        path, evaluated_at = processes.on_main(self._newest)
        if path is None:
            return
        refuse_changes(read_config(self.run / "config.json"), self.config, self.run)
        tensors, state = checkpoint.load(path)
        changed = processes.on_main(lambda: changes(state.get("images", {}), self.images))
        if changed and not allow_changed_data:
            raise UserError(
                f"{self.run} was trained on other images: {changed}; expected the same, or --allow-changed-data, or "
                "another --output-dir"
            )
        train_step.load(tensors, state, what=str(path))
        progress.load(state, evaluated_at=evaluated_at)
        self.best.load(state)
        processes.log_main("resuming from %s%s", path, f" with other images: {changed}" if changed else "")

    def _newest(self) -> tuple[Path | None, int]:
        path, broken = checkpoint.newest(self.folder)
        for problem in broken:
            log.warning("broken checkpoint skipped: %s", problem)
        return path, last_evaluated(self.run / "metrics.jsonl")
