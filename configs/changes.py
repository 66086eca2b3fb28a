"""What may change between the first command of a run and the one that goes on with it."""

from pathlib import Path

from configs.checks import UserError
from configs.schema import Config

# How long, how often, on what machine and how it is shown; not what is learned from what.
MAY_CHANGE = {"name", "summary", "solver", "epochs", "max_steps", "minutes", "accumulate", "precision", "threads"}
MAY_CHANGE |= {"checkpoint_epochs", "checkpoint_steps", "keep_checkpoints", "show_epochs"}


def refuse_changes(begun: Config, now: Config, folder: Path) -> None:
    """Raises UserError if `now` is another training than the one that was begun in `folder`."""
    changed = []
    for prefix, before, after in (("", vars(begun), vars(now)), ("train.", vars(begun.train), vars(now.train))):
        changed += [
            f"{prefix}{name} (found {after[name]}, begun with {before[name]})"
            for name in before
            if name not in MAY_CHANGE | {"train"} and before[name] != after[name]
        ]
    if changed:
        raise UserError(
            f"{folder} holds another run: {'; '.join(changed)}; accepted: the same, or another --output-dir"
        )
