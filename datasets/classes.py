"""The classes of image folders by name: which label each sub-folder has, and that two folders agree in them."""

from collections.abc import Callable
from dataclasses import replace

from flowferry.configs.labels import folders_of
from flowferry.configs.names import natural_order, numbered, one_line, same_form, shown
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.couplings import MATCHES_LABELS
from flowferry.datasets.image_folder import (
    checked_classes,
    class_names,
    common_stems,
    list_folder,
    list_images,
    pair_name,
)


def name_classes(config: Config, before: Config | None, tell: Callable[[str], None]) -> Config:
    """Return `config` with the names of its folders' classes, and `tell` these and what was passed over, line by line.

    before: the configuration that the run was started with; None for a new run. Labels stay as they were there; those
    of a new run are in the order that `ImageFolderConfig.classes` says. Raises UserError as `image_folder` does, and
    where labels of two folders are compared whose names differ.
    """
    folders = folders_of(config)
    both = len(folders) == 2 and config.is_paired
    only = common_stems(*folders.values(), allow_unmatched=config.allow_unmatched) if both else None
    for what, folder in folders.items():
        listed, skipped = list_folder(folder)
        if skipped:
            tell(f"{what} {shown(folder.root)}: {skipped}")
        names = [name for name in listed.values() if only is None or pair_name(name) in only]
        asked = checked_classes(folder, names) if folder.classes else known_order(config, before, what, names)
        config = replace(config, **{what: replace(folder, classes=asked)})  # type: ignore[arg-type]
    check_same_classes(config)
    named = {f" of the {what}": folder.classes for what, folder in folders_of(config).items() if folder.classes}
    if len(named) == 2 and len(set(named.values())) == 1:
        named = {"": named.popitem()[1]}
    for what, classes in named.items():
        tell(f"label → folder{what}: {numbered(classes)}")
    return config


def known_order(config: Config, before: Config | None, what: str, names: list[str]) -> tuple[str, ...]:
    """Return the classes of the images `names` in the order that the run or the other folder has, else the natural one.

    A run of version 0.2 or older kept no names; its order was alphabetical.
    """
    found = class_names(names)
    orders = []
    if before is not None and what in (started := folders_of(before)):
        orders.append(started[what].classes or tuple(sorted(found)))
    if compares_labels(config):
        orders += [tuple(map(same_form, folder.classes)) for folder in folders_of(config).values()]
    return next((order for order in orders if set(order) == found), natural_order(found))


def compares_labels(config: Config) -> bool:
    """Return whether a label of the source is taken for the same label of the target."""
    return config.coupling in MATCHES_LABELS or config.infer_labels


def check_same_classes(config: Config) -> None:
    """Raise UserError where labels of two image folders are compared, and the classes behind them have other names."""
    folders = list(folders_of(config).values())
    if len(folders) < 2 or not compares_labels(config):
        return
    names = [folder.classes for folder in folders]
    if not config.is_paired:  # in pairs by name, the sub-folders are the same anyway
        names = [n or tuple(sorted(class_names(list_images(f).values()))) for n, f in zip(names, folders, strict=True)]
    if all(names) and names[0] != names[1]:
        got = " and ".join(f"{one_line(n)} in {shown(f.root)}" for n, f in zip(names, folders, strict=True))
        what = "infer_labels" if config.infer_labels else f"coupling {config.coupling}"
        raise UserError(f"{what}: got the classes {got}, expected the same names in the same order")
