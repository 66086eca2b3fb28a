"""Which images of two folders, or of the two sides of one, belong together, by what their layouts call their names."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.labels import folders_of
from flowferry.configs.layouts import CHOSEN_LATER, PLAIN
from flowferry.configs.names import with_code_points
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.file_checks import sizes_of
from flowferry.datasets.layouts import SHOWN, endings_that_meet, pattern_of, shown
from flowferry.datasets.members import Member, files_of, members_of
from flowferry.datasets.streaming import ImageFiles

# --- layouts --------------------------------------------------------------------------------------------


def choose_layouts(config: Config, before: Config | None, tell: Callable[[str], None]) -> Config:
    """Return `config` with what it left to its folders: their layouts and backgrounds; `tell` which layouts these are.

    before: the configuration that the run was started with, which is followed where `config` leaves a choice; None for
    a new run. Raises UserError where the two sides of a folder are not found.
    """
    asked = folders_of(config)
    sides = {what: as_started(side, folders_of(before).get(what) if before else None) for what, side in asked.items()}
    shared = len(sides) == 2 and len({Path(side.root).resolve() for side in sides.values()}) == 1
    found = {}
    for what, side in sides.items():
        layout = {"source": "A", "target": "B"}[what] if shared and side.layout == "auto" else side.layout
        if layout in CHOSEN_LATER:
            layout = pattern_of(layout, Path(side.root), files_of(side)[0])
        found[what] = replace(side, layout=layout)
    if config.is_paired and not shared and [side.layout for side in sides.values()] == ["auto", "auto"]:
        found = dict(zip(found, with_endings(*found.values()), strict=True))
    for what, side in found.items():
        if side.layout != PLAIN:
            tell(f"{what} {side.root}: layout {side.layout}{told_splits(side)}")
    if shared and sides["source"].layout in ("auto", "A", "left"):
        tell("the other direction: --direction BtoA")
    return replace(config, **found)  # type: ignore[arg-type]


def as_started(side: ImageFolderConfig, started: ImageFolderConfig | None) -> ImageFolderConfig:
    """Return a folder with the layout and the background that a run was started with, where it leaves them open."""
    if started is None:
        return side
    layout = started.layout if side.layout == "auto" else side.layout
    return replace(side, layout=layout, background=started.background if side.background == "auto" else side.background)


def with_endings(source: ImageFolderConfig, target: ImageFolderConfig) -> list[ImageFolderConfig]:
    """Return two folders with endings such as _A taken off, where no names meet, and then all of the smaller one do."""
    sides = [source, target]
    names = [[one.pair_name for one in members_of(side)] for side in sides]
    if set(names[0]) & set(names[1]) or (better := endings_that_meet(*names)) is None:
        return sides
    patterns, count = better
    if count < min(map(len, names)):
        return sides
    return [with_name(side, pattern) for side, pattern in zip(sides, patterns, strict=True)]


def with_name(side: ImageFolderConfig, pattern: str) -> ImageFolderConfig:
    """Return a folder whose layout has `pattern` in the place of {name}."""
    return replace(side, layout=side.layout.replace(PLAIN, pattern))


def told_splits(side: ImageFolderConfig) -> str:
    """Return which images of a folder are held out, where its layout says it, as text; empty where it does not."""
    splits = [one.split for one in members_of(side)]
    held_out = {name: splits.count(name) for name in ("val", "test") if name in splits}
    counts = ", ".join(f"{count:,} of {name}" for name, count in held_out.items())
    return f"; {splits.count('train'):,} images to train on, held out: {counts}" if held_out else ""


# --- names ----------------------------------------------------------------------------------------------


def pair_names(config: ImageFolderConfig) -> set[str]:
    """Return the `pair_name` of each image. Raises UserError where two images have the same."""
    seen: dict[str, Member] = {}
    for one in members_of(config):
        if (first := seen.setdefault(one.pair_name, one)) != one:
            both = f"{with_code_points(first.path)} and {with_code_points(one.path)}"
            raise UserError(f"coupling given: got {both} in {config.root}, expected one image of each name")
    return set(seen)


def common_names(source: ImageFolderConfig, target: ImageFolderConfig, *, allow_unmatched: bool) -> frozenset[str]:
    """Return the names, as `Member.pair_name` gives them, that images of both sides have.

    Raises UserError where there are none, where two images of a side have the same, or, unless `allow_unmatched`,
    naming images without a partner.
    """
    sides = (source, target)
    names = [pair_names(side) for side in sides]
    both = names[0] & names[1]
    alone = [sorted(own - both) for own in names]
    if not both or (any(alone) and not allow_unmatched):
        told = [f"{len(both)} pairs by relative name"]
        told += [
            f"{len(own)} only in {described(side)} ({shown(own)})"
            for side, own in zip(sides, alone, strict=True)
            if own
        ]
        raise UserError(
            f"coupling given: got {'; '.join(told)}, expected a partner for each, or --allow-unmatched, which leaves "
            f"those without one out{advice(sides, names, len(both))}"
        )
    return frozenset(both)


def described(side: ImageFolderConfig) -> str:
    """Return the folder of a side as text, with its layout where that is not the plain one."""
    return side.root if side.layout in ("auto", PLAIN) else f"{side.root} as {side.layout}"


def advice(sides: Sequence[ImageFolderConfig], names: Sequence[set[str]], met: int) -> str:
    """Return which options would make more names meet than the `met` ones, as text; empty where none is known."""
    better = endings_that_meet(*map(sorted, names))
    if better is None or better[1] <= met:
        return ""
    patterns, count = better
    plain = [replace(side, layout=PLAIN) if side.layout in CHOSEN_LATER else side for side in sides]
    layouts = [with_name(side, pattern).layout for side, pattern in zip(plain, patterns, strict=True)]
    return f"; {count:,} meet with --source.layout '{layouts[0]}' --target.layout '{layouts[1]}'"


# --- sizes ----------------------------------------------------------------------------------------------


def check_same_sizes(config: Config, pairs: frozenset[str]) -> None:
    """Raise UserError where the crops of partners would not show the same part: where their sizes differ.

    pairs: the names of the images that are looked at, as `Member.pair_name` gives them.
    """
    if not any(side.resize == "crop" for side in folders_of(config).values()):
        return
    names, sizes = sorted(pairs), []
    for side in folders_of(config).values():
        path_of = {one.pair_name: one.path for one in members_of(side)}
        files = ImageFiles(side, [path_of[name] for name in names], config.shape)  # type: ignore[arg-type]
        sizes.append(sizes_of(files))
    differing = [
        f"{with_code_points(name)} of {one[0]} × {one[1]} and {other[0]} × {other[1]}"
        for name, one, other in zip(names, *sizes, strict=True)
        if one != other
    ]
    if differing:
        listed = "; ".join(differing[:SHOWN]) + ("; …" if len(differing) > SHOWN else "")
        raise UserError(
            f"resize crop: got {len(differing):,} pairs of different sizes ({listed}), expected the same of partners; "
            "--source.shorter-side and --target.shorter-side scale both"
        )
