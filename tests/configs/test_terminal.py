"""Names on the terminal: shown, and never obeyed."""

import logging
from pathlib import Path

import pytest

from flowferry.configs.terminal import EscapingFormatter, escaped


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("größe 日本語 😀 العربية a\\b 'c'.png", "größe 日本語 😀 العربية a\\b 'c'.png"),
        ("👩\u200d🚀.png", "👩\u200d🚀.png"),  # joined into one picture
        ("\x1b[31mred\x1b[0m.png", r"\x1b[31mred\x1b[0m.png"),
        ("\x1b]0;title\x07.png", r"\x1b]0;title\x07.png"),
        ("\x9b2Jclear", r"\x9b2Jclear"),  # the same as ESC [
        ("two\nlines\r\tand\x00more", r"two\nlines\r\tand\x00more"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("\u2066isolated\u2069", r"\u2066isolated\u2069"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\udcff\udcfe.png", r"\udcff\udcfe.png"),
        ("\x7f", r"\x7f"),
    ],
)
def test_control_characters_are_shown_and_all_others_stay(name: str, shown: str) -> None:
    assert escaped(name) == shown
    shown.encode()  # it can be printed


def formatted(message: str, *told: object, **more: object) -> str:
    record = logging.LogRecord("flowferry", logging.INFO, __file__, 1, message, told, None)
    return EscapingFormatter("%(message)s").format(record)


def test_what_a_message_is_told_stays_on_its_line() -> None:
    name = "a\n\x1b[2Jb\udcff.png"
    told = (name, Path(name), OSError(2, "not there", name), 3, 0.5)
    line = formatted("heading:\n\t%s, %s, %s; %d of %.1f", *told)
    shown = r"a\n\x1b[2Jb\udcff.png"
    assert line == f"heading:\n\t{shown}, {shown}, [Errno 2] not there: 'a\\n\\x1b[2Jb\\udcff.png'; 3 of 0.5"
    assert formatted(f"put together: {name}") == "put together: a\n\\x1b[2Jb\\udcff.png"
    assert formatted("%(a)s", {"a": "\x1b"}) == r"\x1b"
