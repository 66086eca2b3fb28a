"""The notebooks of docs/notebooks run without network and data, and what is stored in them is what they give."""

import re
from pathlib import Path

import nbformat
import pytest

from notebooks import executed

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def assert_alike(stored: nbformat.NotebookNode, fresh: nbformat.NotebookNode) -> None:
    """Each cell has printed the same words and drawn as many pictures; its numbers may differ as machines round."""
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        before, now = ([dict(output) for output in cell.get("outputs", [])] for cell in (old, new))
        assert old.get("execution_count") == new.get("execution_count")
        assert [sorted(output.get("data", {})) for output in before] == [
            sorted(output.get("data", {})) for output in now
        ]
        for was, output in zip(before, now, strict=True):
            said, says = was.get("text", ""), output.get("text", "")
            assert output.get("name", "stdout") == "stdout" and NUMBER.sub("#", said) == NUMBER.sub("#", says)
            for number, again in zip(NUMBER.findall(said), NUMBER.findall(says), strict=True):
                assert float(again) == pytest.approx(float(number), rel=0.3, abs=0.1 if "." in number else 2), says


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_is_stored_in_it(notebook: Path, tmp_path: Path) -> None:
    """Its own assertions hold the numbers that its text speaks of."""
    fresh = executed(notebook, tmp_path)
    assert_alike(nbformat.read(notebook, as_version=4), fresh)
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_enough_to_be_shown(notebook: Path) -> None:
    assert notebook.stat().st_size < 1_000_000
