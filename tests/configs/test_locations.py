"""Where results go: what is typed with a slash at its end is a folder."""

from pathlib import Path

import pytest

from flowferry.configs.locations import names_folder


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("new/", True),
        ("new", False),
        ("new.png/", True),
        ("there", True),
        ("there/", True),
        (".", True),
        ("new/.", True),
    ],
)
def test_a_slash_at_the_end_says_that_it_is_a_folder(
    typed: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert names_folder(typed) is expected
