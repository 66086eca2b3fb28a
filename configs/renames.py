"""What older versions wrote otherwise and is still read, from configurations and from command lines."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from flowferry.configs.layouts import PLAIN

RENAMED = {
    "classes": "num_classes",
    "read_labels": "infer_labels",
    "solver.steps": "solver.num_steps",
    "source.augment.hidden": "source.augment.cutout",
    "target.augment.hidden": "target.augment.cutout",
}
RENAMED_KINDS = {
    "drawn-digits": "synthetic-digits",
    "drawn-garments": "synthetic-garments",
    "drawn-colours": "synthetic-colors",
}


def with_current_names(data: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration's dictionary in which entries of older versions are as they are today.

    Those of version 0.1 get the names of today. Image folders without a layout were read as they lay.
    """
    data = deepcopy(data)
    for old, new in RENAMED.items():
        *outer, old_name = old.split(".")
        entries: Any = data
        for name in outer:
            entries = entries.get(name) if isinstance(entries, dict) else None
        if isinstance(entries, dict) and old_name in entries:
            entries.setdefault(new.rpartition(".")[2], entries.pop(old_name))
    for side in ("source", "target"):
        folder = data.get(side)
        if isinstance(folder, dict) and folder.get("kind") == "image-folder":
            folder.setdefault("layout", PLAIN)
            if isinstance(augment := folder.get("augment"), dict) and not augment.get("shifted"):
                augment.setdefault("behind", "mirror")  # as a new run has it: without a shift there is nothing behind
    return data


def with_current_flags(argv: Sequence[str]) -> list[str]:
    """Return `argv` with options of version 0.1 under their current names.

    There `--path one-step` was the objective, and any other path left it; that is still what `--path` alone means.
    """
    flags = {}
    for old, new in RENAMED.items():
        for prefix in ("--", "--no-"):
            flags[prefix + old.replace("_", "-")] = prefix + new.replace("_", "-")
    words = []
    for flag, equals, value in (word.partition("=") for word in argv):
        words.append(flags.get(flag.replace("_", "-"), flag) + equals + value)
    given = [word.partition("=")[0] for word in words]
    if "--path" in given and "--objective" not in given:
        words += ["--objective", "flow"]  # which the path one-step then overrides
    return words
