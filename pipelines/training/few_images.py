"""Say what a data set of few images means for a run."""

from flowferry.configs.schema import Config
from flowferry.pipelines.training.progress import Progress

FEW = 1000  # of fewer images, networks of this size memorize each one: Gu et al. 2023, arXiv:2310.02664


def note(config: Config, progress: Progress, size: int | None) -> str:
    """Return in one line what it means that the target has `size` images to train on; empty where they are not few."""
    if size is None or size >= FEW or not config.is_image or config.target.is_synthetic:
        return ""
    train, steps = config.train, progress.steps_per_epoch
    epoch = f"{steps} step{'s' if steps > 1 else ''} of {train.batch_size}"
    if config.is_paired:
        advice = "--source.augment.mirrored --target.augment.mirrored, and both with shifted 2"
    else:
        advice = "--target.augment.mirrored, --target.augment.shifted 2"
    return (
        f"few images to train on, {size}: an epoch is {epoch}, {train.epochs:,} epochs are {steps * train.epochs:,} "
        "steps (more: --train.epochs). Expect the network to learn them by heart; more images help, and so does "
        f"changing them at random: {advice}"
    )
