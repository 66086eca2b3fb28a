"""Which files a run is trained on: listed in its checkpoints, compared with what is there when it is resumed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.schema import Config
from flowferry.datasets.bad_files import MAX_LISTED, Unreadable
from flowferry.datasets.builders import Usable
from flowferry.datasets.image_folder import split_members
from flowferry.datasets.members import Member

Sizes = dict[str, int | None]
"""The size in bytes of each image by its path relative to the folder; None where damage may have changed it."""
ImageLists = dict[str, dict[str, Sizes]]
"""The images of "source" and "target", where these are folders, in their splits "train" and "test", in order."""


def list_images(config: Config, usable: Usable) -> ImageLists:
    """Return the images that a pipeline is trained and tested on."""
    found = {}
    for side, bad in (("source", usable.bad_sources), ("target", usable.bad_targets)):
        folder = getattr(config, side)
        if isinstance(folder, ImageFolderConfig):
            listed = {split: split_members(folder, split, usable.pairs, bad)[0] for split in ("train", "test")}
            found[side] = {split: sizes(Path(folder.root), some) for split, some in listed.items()}
    return found


def sizes(root: Path, images: Sequence[Member]) -> Sizes:
    """Return the sizes of files; None of one that is gone meanwhile, which is told when it is needed."""
    found: Sizes = {}
    for one in images:
        try:
            found[one.path] = (root / one.path).stat().st_size
        except OSError:
            found[one.path] = None
    return found


def forget_sizes(images: ImageLists, config: Config, damaged: Iterable[Unreadable]) -> None:
    """Take the sizes of damaged files for unknown: nothing was learned from them, so that they may be repaired."""
    for folder in damaged:
        for side, splits in images.items():
            if getattr(config, side).root == folder.root:
                for listed in splits.values():
                    listed.update(dict.fromkeys(folder.reasons.keys() & listed.keys()))


class Image(NamedTuple):
    """An image file of a run."""

    split: str
    size: int | None


def changes(before: ImageLists, now: ImageLists) -> str:
    """Return in one line how the images differ, side by side; empty where they do not."""
    told = [f"{side}: {what}" for side in before if (what := changes_of_side(before[side], now.get(side, {})))]
    return "; ".join(told)


def changes_of_side(before: dict[str, Sizes], now: dict[str, Sizes]) -> str:
    """Return in a few words how the images of one side differ; empty where they do not."""
    old, new = (
        {name: Image(split, size) for split, listed in splits.items() for name, size in listed.items()}
        for splits in (before, now)
    )
    both = [name for name in new if name in old]
    differing = {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in both if old[name].size not in (None, new[name].size)],
        "held out now, which were trained on": [n for n in both if (old[n].split, new[n].split) == ("train", "test")],
        "trained on now, which were held out": [n for n in both if (old[n].split, new[n].split) == ("test", "train")],
    }
    told = [f"{len(names)} {what} ({shortened(names)})" for what, names in differing.items() if names]
    if not told and list(old) != list(new):
        told = ["in another order"]
    return f"{len(old)} images → {len(new)}: {', '.join(told)}" if told else ""


def shortened(names: Sequence[str]) -> str:
    """Return the first few names as text."""
    return ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "")
