"""Print names of files as they are, but for the characters that would command the terminal instead of being shown."""

import copy
import logging
import re
from pathlib import Path

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, what turns the direction of text, and bytes of a name that are no UTF-8."""


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return `text` with control characters but those in `keep` as Python writes them, such as \n or \x1b."""
    return CONTROL.sub(lambda found: found[0] if found[0] in keep else escape(found[0]), text)


def escape(character: str) -> str:
    """Return a character as Python writes it in a string."""
    return character.encode("unicode_escape").decode()


class EscapingFormatter(logging.Formatter):
    """Escape what log messages were told: names stay on their line, while the message itself may have several."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        shown = copy.copy(record)
        if isinstance(record.args, tuple):
            told = (str, Path, BaseException)
            shown.args = tuple(escaped(str(value)) if isinstance(value, told) else value for value in record.args)
        return escaped(super().format(shown), keep="\n\t")
