"""What may change between the first command of a run and the one that goes on with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.checks import UserError
from configs.schema import Config

MAY_CHANGE = {
    *("name", "summary", "source.cache_mb", "target.cache_mb"),
    *("train.epochs", "train.max_steps", "train.minutes"),
    *("train.accumulate", "train.precision", "train.threads", "train.on_nonfinite"),
    *("train.checkpoint_epochs", "train.checkpoint_steps", "train.keep_checkpoints"),
    *("train.show_epochs", "train.eval_samples"),
}
"""How long, how often, on what machine and how it is shown; not what is learned from what. So may the solver."""


def refuse_changes(begun: Config, now: Config, folder: Path) -> None:
    """Raises UserError if `now` is another training than the one that was begun in `folder`."""
    before, after = (dict(leaves(config.to_dict())) for config in (begun, now))
    changed = [
        f"{name} (found {after.get(name)}, begun with {before.get(name)})"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and name not in MAY_CHANGE and not name.startswith("solver.")
    ]
    if changed:
        raise UserError(
            f"{folder} holds another run: {'; '.join(changed)}; accepted: the same, or another --output-dir"
        )


def leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("train.lr", 0.001) and so on."""
    for name, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
