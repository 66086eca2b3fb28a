"""The classes of a configuration: which have names, and how they are asked for on the command line."""

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.names import one_line, same_form
from flowferry.configs.networks import DiffusersConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError


def folders_of(config: Config) -> dict[str, ImageFolderConfig]:
    """Return those sides of a configuration that are image folders, by "source" and "target"."""
    sides = {"source": config.source, "target": config.target}
    return {what: side for what, side in sides.items() if isinstance(side, ImageFolderConfig)}


def class_names_of(config: Config) -> tuple[str, ...]:
    """Return the names of the classes that a pipeline is conditioned on, by label; none where they have no names."""
    if isinstance(config.model, DiffusersConfig):
        return config.model.prompts
    target = folders_of(config).get("target")
    return target.classes if target and config.num_classes else ()


def parse_labels(text: str, config: Config) -> list[int]:
    """Return the labels that a text such as "7", "0-9", "1,3,5-7", "cat,dog" or "cat-fox" asks for, in its order.

    What is the name of a class means that class, even if it looks like a number, a range or a list. Raises UserError
    for what is neither a name nor a number from 0 to num_classes − 1, and for a pipeline without classes.
    """
    if not config.num_classes:
        raise UserError(f"--labels: got {text!r}, expected none, because {config.name} has no classes")
    names = [same_form(name) for name in class_names_of(config)]
    parts = [text] if same_form(text) in names else text.split(",")
    labels = [labels_of(part, names, config.num_classes) for part in parts]
    if not all(labels):
        numbers = f"numbers from 0 to {config.num_classes - 1} such as 7, 0-9 or 1,3,5"
        expected = f"{numbers}, or the names {one_line(names)}" if names else numbers
        raise UserError(f"--labels: got {text!r}, expected {expected}")
    return [label for some in labels for label in some]


def labels_of(part: str, names: list[str], num_classes: int) -> range:
    """Return the labels of a name, a number, or a range between two of them; empty for anything else."""

    def label_of(text: str) -> int | None:
        if same_form(text) in names:
            return names.index(same_form(text))
        return int(text) if text.strip().isdecimal() and int(text) < num_classes else None

    if (label := label_of(part)) is not None:
        return range(label, label + 1)
    for at in (at for at, character in enumerate(part) if character == "-"):
        first, last = label_of(part[:at]), label_of(part[at + 1 :])
        if first is not None and last is not None:
            return range(first, last + 1)
    return range(0)
