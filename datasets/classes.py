"""The classes of image folders by name: which label each sub-folder has, and that two folders agree in them."""

from collections.abc import Callable, Collection
from dataclasses import replace

from flowferry.configs.labels import folders_of
from flowferry.configs.names import natural_order, numbered, one_line, same_form
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.couplings import MATCHES_LABELS
from flowferry.datasets.image_folder import checked_classes, class_names
from flowferry.datasets.members import Member, files_of, members_among, members_of


def name_classes(config: Config, before: Config | None, tell: Callable[[str], None]) -> Config:
    """Return `config` with the names of its folders' classes, and `tell` these and what was passed over, line by line.

    before: the configuration that the run was started with; None for a new run. Labels stay as they were there; those
    of a new run are in the order that `ImageFolderConfig.classes` says. Raises UserError as `image_folder` does, and
    where labels of two folders are compared whose names differ.
    """
    for what, folder in folders_of(config).items():
        paths, skipped = files_of(folder)
        members = members_among(paths, folder)
        if skipped:
            tell(f"{what} {folder.root}: {skipped}")
        asked = checked_classes(folder, members) if folder.classes else known_order(config, before, what, members)
        config = replace(config, **{what: replace(folder, classes=asked)})  # type: ignore[arg-type]
    check_same_classes(config)
    named = {f" of the {what}": folder.classes for what, folder in folders_of(config).items() if folder.classes}
    if len(named) == 2 and len(set(named.values())) == 1:
        named = {"": named.popitem()[1]}
    for what, classes in named.items():
        tell(f"label → folder{what}: {numbered(classes)}")
    return config


def known_order(config: Config, before: Config | None, what: str, images: Collection[Member]) -> tuple[str, ...]:
    """Return the classes of `images` in the order that the run or the other folder has, else the natural one.

    A run of version 0.2 or older kept no names; its order was alphabetical.
    """
    found = class_names(images)
    orders = []
    if before is not None and what in (started := folders_of(before)):
        orders.append(started[what].classes or tuple(sorted(found)))
    if config.coupling in MATCHES_LABELS or config.infer_labels:
        orders += [tuple(map(same_form, folder.classes)) for folder in folders_of(config).values()]
    return next((order for order in orders if set(order) == found), natural_order(found))


def other_classes(config: Config) -> str:
    """Return how the classes of source and target differ, if both are labeled image folders; empty if they do not."""
    folders = list(folders_of(config).values())
    if len(folders) < 2:
        return ""
    names = [f.classes or tuple(sorted(class_names(members_of(f)))) for f in folders]
    if not all(names) or names[0] == names[1]:
        return ""
    return " and ".join(f"{one_line(n)} in {f.root}" for n, f in zip(names, folders, strict=True))


def check_same_classes(config: Config) -> None:
    """Raise UserError where a label of one image folder is taken for the same label of another with other classes.

    Pairs by name need no labels.
    """
    compares = config.infer_labels or (config.coupling in MATCHES_LABELS and not config.is_paired)
    if compares and (got := other_classes(config)):
        what = "infer_labels" if config.infer_labels else f"coupling {config.coupling}"
        raise UserError(f"{what}: got the classes {got}, expected the same names in the same order")
