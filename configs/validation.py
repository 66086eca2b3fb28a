"""Check values when a configuration is made, and define the errors that are told in one line, with their exit codes."""

import errno
from dataclasses import fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints


class UserError(Exception):
    """Something the user can put right, told in one line: what is wrong, what was got, what was expected.

    It is raised before work begins.
    """

    exit_code: ClassVar[int] = 2


class BrokenOff(OSError):
    """A file that could not be written after work had begun, told in one line. Made of (errno, reason, path)."""

    exit_code: ClassVar[int] = 3

    def __str__(self) -> str:
        return f"{self.filename} cannot be written ({self.strerror})"


DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""The errors of a disk that is full, over its quota, read-only or broken: no other file can be written to it either."""


class Range(NamedTuple):
    """The accepted values of a number: finite, low ≤ value ≤ high, or low < value where `open_low`."""

    low: float
    high: float = float("inf")
    open_low: bool = False

    def check(self, name: str, value: float) -> None:
        """Raise UserError if `value` is not in the range."""
        above = value > self.low if self.open_low else value >= self.low
        if not (above and value <= self.high and value < float("inf")):
            bound = f"{'>' if self.open_low else '≥'} {self.low:g}"
            upper = "" if self.high == float("inf") else f" and ≤ {self.high:g}"
            raise UserError(f"{name}: got {value}, expected a number {bound}{upper}")


Positive = Range(0, open_low=True)


class Validated:
    """Base class of dataclasses whose annotated ranges and literals are checked when they are made."""

    def __post_init__(self) -> None:
        """Raise UserError for the first field that is out of its range or not among its literals."""
        hints = get_type_hints(type(self), include_extras=True)
        for f in fields(self):  # type: ignore[arg-type]
            check_value(f.name, getattr(self, f.name), hints[f.name])


def check_value(name: str, value: Any, hint: Any) -> None:
    """Raise UserError if `value` breaks the literals or the `Range` of the type `hint`."""
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise UserError(f"{name}: got {value!r}, expected one of {', '.join(map(str, get_args(hint)))}")
    for bound in getattr(hint, "__metadata__", ()):
        if isinstance(bound, Range):
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None:
                    bound.check(name, number)
