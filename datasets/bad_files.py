"""Image files that cannot be read: named all at once, whichever folder they lie in."""

import logging
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple

from flowferry.configs.validation import UserError

log = logging.getLogger("flowferry")

MAX_LISTED = 5  # names that an error lists


class Unreadable(NamedTuple):
    """The files of one folder that cannot be read."""

    root: str
    reasons: dict[str, str]
    """Why, by their paths relative to `root`."""

    def __str__(self) -> str:
        listed = "; ".join(f"{name}: {reason}" for name, reason in [*self.reasons.items()][:MAX_LISTED])
        more = "; …" if len(self.reasons) > MAX_LISTED else ""
        count = len(self.reasons)
        return f"{self.root}: {count} image{'s' if count > 1 else ''} cannot be read: {listed}{more}"


class BadFiles(UserError):
    """Image files that cannot be read, in one folder or in several."""

    def __init__(self, *folders: Unreadable) -> None:
        self.folders = folders
        advice = "repair or remove them, or leave them out: --source.on-bad-file skip, --target.on-bad-file skip"
        super().__init__(f"{'; '.join(map(str, folders))}; {advice}")


class CollectedBadFiles(AbstractContextManager["CollectedBadFiles"]):
    """Catches the BadFiles of each `with` block that it guards; `raise_all` raises them as one."""

    def __init__(self) -> None:
        self.found: dict[str, Unreadable] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, BadFiles):
            return False
        for folder in error.folders:
            before = self.found.get(folder.root, Unreadable(folder.root, {}))
            self.found[folder.root] = Unreadable(folder.root, before.reasons | folder.reasons)
        return True

    def raise_all(self) -> None:
        """Log a line for each file, and raise one BadFiles of them all, where there are any."""
        for folder in self.found.values():
            tell(folder, "cannot be read")
        if self.found:
            raise BadFiles(*self.found.values())


def tell(folder: Unreadable, what: str) -> None:
    """Log a line for each file of `folder`, with `what` is the matter or becomes of it."""
    for name, reason in folder.reasons.items():
        log.warning("%s: %s/%s: %s", what, folder.root, name, reason)
