"""Turn what tyro finds wrong with a command line into a UserError of one line, from tyro's own events."""

import contextlib
import difflib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from flowferry.configs.validation import UserError

try:
    from tyro._errors import on_parse_error
except ImportError:  # it is private to tyro: a version without it is read from what it prints, by `unframed`

    def on_parse_error(hook: Any) -> Any:
        """Return a context in which nothing is called."""
        return contextlib.nullcontext()


@contextlib.contextmanager
def errors_in_one_line(options: Any) -> Iterator[None]:
    """Raise UserError where tyro would print an error and exit.

    options: the dataclass that tyro fills in, or the instance that holds the defaults.
    """

    def raise_user_error(event: Any) -> None:
        message = None
        with contextlib.suppress(AttributeError):  # an event of another version of tyro
            message = message_of(event, lambda: list(option_names(options)))
        if message is not None:
            raise UserError(" ".join(message.split()))

    printed = io.StringIO()
    try:
        with on_parse_error(raise_user_error), contextlib.redirect_stderr(printed):
            yield
    except SystemExit as leaving:
        if not leaving.code:  # --help
            raise
        raise UserError(unframed(printed.getvalue())) from None


def message_of(event: Any, names: Callable[[], list[str]]) -> str | None:
    """Return the message of one of tyro's events; None for an unknown kind. names: returns the accepted options."""
    match type(event).__name__:
        case "UnrecognizedArgs":
            return unrecognized(event.tokens, names())
        case "MissingArgs":
            missing = ", ".join(context.arg.display_name() for context in event.missing_arguments)
            also = unrecognized(event.unrecognized_tokens, names())
            return f"missing: {missing}" + (f"; {also}" if also else "")
        case "BadValue" if event.reason == "too_few_values":
            return f"{event.argument.display_name()}: got too few values, expected {event.argument.lowered.metavar}"
        case "InvalidChoice":  # its choices are a set, in no order
            choices = ", ".join(sorted(event.choices))
            return f"{event.argument.display_name()}: got {event.value!r}, expected one of {choices}"
        case "InstantiationFailure":
            where = f"{event.argument.display_name()}: " if event.argument else ""
            return where + (str(event.message).splitlines() or ["not accepted"])[0]
    return None


def unrecognized(tokens: Sequence[str], names: Sequence[str]) -> str:
    """Return which of the tokens are not options, each with the nearest option that exists."""
    options = [token.partition("=")[0] for token in tokens if re.match(r"--?[^\W\d]", token)]
    if not options:
        return f"unrecognized: {', '.join(tokens)}" if tokens else ""
    return "; ".join(f"unrecognized option {option}{suggestion(option, names)}" for option in options)


def suggestion(option: str, names: Sequence[str]) -> str:
    """Return a question that offers an option of nearly that name, or of that name in a component; or ""."""
    option = option.replace("_", "-")
    near = [name for name in names if name.endswith("." + option.lstrip("-"))]
    near = near or difflib.get_close_matches(option, names, n=1, cutoff=0.8)
    return f", did you mean {' or '.join(near)}?" if near else ""


def option_names(options: Any, prefix: str = "--") -> Iterator[str]:
    """Yield the command-line options of a dataclass; of an instance, also those of the dataclasses in it."""
    hints = get_type_hints(options if isinstance(options, type) else type(options), include_extras=True)
    for field in fields(options):
        if not field.init:
            continue
        names = [getattr(mark, "name", None) for mark in getattr(hints[field.name], "__metadata__", ())]
        own = field.name.replace("_", "-")
        name = prefix + next((renamed for renamed in names if renamed is not None), own)
        value = getattr(options, field.name, None)
        if is_dataclass(value):
            yield from option_names(value, name if name == prefix else f"{name}.")
        else:  # a flag is offered for the value that it does not have
            yield name.replace(prefix, f"{prefix}no-", 1) if value is True else name


def unframed(printed: str) -> str:
    """Return what tyro printed in one line, without its colors and its frame."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
    return " ".join(re.sub(r"[\u2500-\u257f]+|^[+|]|[+|]$|-{3,}", " ", plain, flags=re.MULTILINE).split())
