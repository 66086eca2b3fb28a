"""Values checked when a configuration is made, and the one kind of error that a user can put right."""

from dataclasses import fields
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints


class UserError(Exception):
    """Something the user can put right, told in one line: what is wrong, what was found, what is accepted."""


class Range(NamedTuple):
    """Accepted values of a number: finite, low ≤ value ≤ high, or low < value where `open_low`."""

    low: float
    high: float = float("inf")
    open_low: bool = False

    def check(self, name: str, value: float) -> None:
        above = value > self.low if self.open_low else value >= self.low
        if not (above and value <= self.high and value < float("inf")):
            bound = f"{'>' if self.open_low else '≥'} {self.low:g}"
            upper = "" if self.high == float("inf") else f" and ≤ {self.high:g}"
            raise UserError(f"{name}: found {value}, accepted is a number {bound}{upper}")


Positive = Range(0, open_low=True)


class Checked:
    """Checks the annotated ranges and the literals of a dataclass when it is made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            check_value(f.name, value, hints[f.name])


def check_value(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise UserError(f"{name}: found {value!r}, accepted: {', '.join(map(str, get_args(hint)))}")
    for bound in getattr(hint, "__metadata__", ()):
        if isinstance(bound, Range):
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None:
                    bound.check(name, number)
