"""The images of a folder that belong to one side, as its layout says."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.layouts import CHOSEN_LATER, read_layout
from flowferry.configs.names import same_form
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import Tree, stem_of
from flowferry.datasets.layouts import pattern_of, shown


class Member(NamedTuple):
    """An image file of a folder."""

    path: str
    """Relative to the folder, with / between the parts."""
    name: str
    """Its {name} in the pattern of the layout: without one, the path without its ending."""
    split: str
    """ "train", "val" or "test" where the layout tells them apart; else empty."""

    @property
    def pair_name(self) -> str:
        """What it has in common with its partner, however both encode their names."""
        return same_form(f"{self.split}/{self.name}" if self.split else self.name)


def files_of(config: ImageFolderConfig) -> tuple[list[str], str]:
    """Return the relative paths of all image files of a folder, sorted, and a text saying what was passed over.

    The text is empty for nothing. Raises UserError where there are no images, and where the folder, or one inside it,
    cannot be listed.
    """
    if not config.root:
        raise UserError("image-folder: got no folder, expected --source.root FOLDER or --target.root FOLDER")
    if not Path(config.root).is_dir():
        raise UserError(f"image-folder: got {config.root}, which is not a folder, expected a folder of images")
    tree, paths = Tree(Path(config.root), follow_links=config.follow_links), []
    for item in tree.walk():
        if item.problem:
            raise UserError(f"{config.root}: {item.name}: {item.problem}")
        paths.append(item.name)
    skipped = tree.describe_skipped("--source.follow-links or --target.follow-links")
    if not paths:
        told = skipped or "it is empty"
        raise UserError(f"image-folder: got no images in {config.root} ({told}), expected at least one")
    return sorted(paths, key=lambda path: (stem_of(path), path)), skipped


def members_of(config: ImageFolderConfig) -> list[Member]:
    """Return the images of one side, sorted by path. Raises UserError as `files_of` does, and where none fits."""
    return members_among(files_of(config)[0], config)


def members_among(paths: list[str], config: ImageFolderConfig) -> list[Member]:
    """Return those of the image files of a folder that fit its layout. Raises UserError where none does."""
    chosen_later = config.layout in CHOSEN_LATER
    pattern = pattern_of(config.layout, Path(config.root), paths) if chosen_later else config.layout
    layout = read_layout(pattern)
    places = [(path, layout.find(stem_of(path))) for path in paths]
    members = [Member(path, *place) for path, place in places if place is not None]
    if not members:
        raise UserError(
            f"image-folder: got no images of the layout {pattern} in {config.root} ({shown(paths)}), "
            "expected at least one"
        )
    return members


def unique_names(members: list[Member]) -> dict[str, str]:
    """Return the path of each image by its path without the ending, or by itself where others have the same."""
    count = Counter(stem_of(one.path) for one in members)
    return {(stem if count[stem := stem_of(one.path)] == 1 else one.path): one.path for one in members}
