"""The documents cite what exists: links, paths, tests, names in the code, and options of the command line.

A test may be cited by the beginning of its name and "…". The first column of a table in CHANGELOG.md holds old names.
"""

import ast
import json
import re
import shlex
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from inspect import getmro, getsource
from pathlib import Path
from pkgutil import resolve_name

import pytest

from flowferry.configs import cli, options
from flowferry.configs.parse_errors import option_names
from flowferry.configs.presets import PIPELINES
from flowferry.configs.renames import with_current_flags
from flowferry.configs.schema import COMPONENTS
from flowferry.configs.validation import UserError
from flowferry.launch import VERBS

ROOT = Path(__file__).parents[1]
NAMED = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md")
DOCUMENTS = (*NAMED, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("notebooks/*.ipynb")))
FOLDERS = (".ci", "configs", "datasets", "docs", "models", "pipelines", "tests")
FILES = [*ROOT.glob("*.*"), *(path for folder in FOLDERS for path in (ROOT / folder, *(ROOT / folder).rglob("*")))]
TREES = {path: ast.parse(path.read_text()) for path in FILES if path.suffix == ".py" and path.parent != ROOT}
TESTS = {
    (path, node.name)
    for path, tree in TREES.items()
    if path.is_relative_to(ROOT / "tests")
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}
CLASSES = {
    node.name: ".".join(("flowferry", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path, tree in TREES.items()
    if not path.is_relative_to(ROOT / "tests") and path.name != "diffusers_network.py"  # which needs diffusers
    for node in tree.body
    if isinstance(node, ast.ClassDef)
}
OPTIONS = {verb: getattr(options, VERBS[verb].options) for verb in VERBS}
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def words_of(document: Path) -> str:
    """Return the text of a document; of a notebook, without its code, which is run instead."""
    if document.suffix != ".ipynb":
        return document.read_text()
    cells = json.loads(document.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def read(document: Path) -> str:
    text = words_of(document)
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE) if document.name == "CHANGELOG.md" else text


def spans(text: str) -> list[str]:
    """Return what stands in `backticks`, outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def lines(text: str) -> list[str]:
    """Return the lines of the code blocks, a continued line as one."""
    return "\n".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)", BLOCK.sub("", words_of(document)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", BLOCK.sub("", words_of(document))):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists() and (not anchor or anchor in anchors(target)), link


@each
def test_cited_paths_exist(document: Path) -> None:
    text = read(document)
    words = {word.strip(",.;:()").partition("::")[0] for code in spans(text) + lines(text) for word in code.split()}
    ours = {w for w in words if re.fullmatch(r"[\w./-]+\.(py|md)", w) or ("/" in w and w.split("/")[0] in FOLDERS)}
    cited = {word for word in ours if not re.search("NAME|…|^runs/|^app.py$", word)}  # the last is written by `export`
    assert not {word for word in cited if not any(file.match(word) for file in FILES)}


@each
def test_cited_tests_exist(document: Path) -> None:
    for code in spans(read(document)):
        if match := re.fullmatch(r"(?:(\S+\.py)::)?(test_\w+)(…?)", code):
            file, name, cut = match.groups()
            names = [found for path, found in TESTS if not file or path.match(file)]
            assert any(found.startswith(name) if cut else found == name for found in names), code


@each
def test_cited_names_exist(document: Path) -> None:
    text = read(document)
    names = set(re.findall(r"\bflowferry(?:\.[A-Za-z_]\w*)+", text))
    for module, imported in re.findall(r"from (flowferry[\w.]*) import ([\w, ]+)", text):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    for name in names:
        with suppress(ModuleNotFoundError):  # what it stands in is no package
            if find_spec(name):
                continue
        resolve_name(name)
    for code in spans(text) + lines(text):
        for owner, member in re.findall(r"\b([A-Z]\w+|pipe)\.([a-z_]\w*)", code.replace("pipe.", "Pipeline.")):
            if owner in CLASSES:
                assert has_member(getattr(import_module(CLASSES[owner]), owner), member), f"{owner}.{member}"


def has_member(cls: type, name: str) -> bool:
    """Return whether the class, or an instance of it once it is made, has an attribute of that name."""
    ours = [base for base in getmro(cls) if base.__module__.startswith("flowferry")]
    return hasattr(cls, name) or any(re.search(rf"(self\.|\n    ){name}\b", getsource(base)) for base in ours)


@each
def test_commands_are_understood(document: Path) -> None:
    text = read(document)
    cut = [*spans(text), *(line for line in lines(text) if "--help" in line)]  # of these, options may be missing
    for line in lines(text) + spans(text):
        if match := re.search(r"(?:^|\b(?:python|accelerate|torchrun)\b.*\s)launch\.py ([^|;&#>]+)", line):
            words = shlex.split(match[1].replace("NAME", "fashion2mnist"))
            argv = [word for word in words if word not in ("--help", "[VERB]", "VERB", "…")]
            verb = "train" if not argv or argv[0].startswith("-") else argv.pop(0)
            assert set(argv) <= set(with_current_flags(argv)), f"{line}: an old name"
            try:
                trains = OPTIONS[verb] is options.TrainOptions
                cli.parse_train(argv, verb=verb) if trains else cli.parse(OPTIONS[verb], argv, verb=verb)
            except UserError as error:
                assert line in cut and "missing" in str(error) and "unrecognized" not in str(error), f"{line}: {error}"


@each
def test_cited_options_exist(document: Path) -> None:
    known = {f"--{name}.kind" for name in COMPONENTS}
    verbs = [verb for verb in VERBS if OPTIONS[verb] is not options.TrainOptions]
    known |= {name for verb in verbs for name in option_names(OPTIONS[verb])}
    for name, config in PIPELINES.items():
        known |= set(option_names(options.TrainOptions(pipeline=name, config=config)))
    for name, kinds in COMPONENTS.items():
        known |= {option for kind in kinds.values() for option in option_names(kind(), f"--{name}.")}
    cited = {word for code in spans(read(document)) if code.startswith("--") for word in code.split()}
    assert {word.partition("=")[0] for word in cited if word.startswith("--")} <= known


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900
