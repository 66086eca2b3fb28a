"""The installed package: beside others that own the names `datasets`, `models` and `configs`, it touches none of them.

The sources are copied, built into a wheel and installed into a fresh environment, which holds copies of Hugging Face's
`datasets` and of a package made here, and finds all dependencies in the environment of the tests. No network is needed.
"""

import hashlib
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
CACHE = "__pycache__"
NOT_SOURCES = (".*", "venv", "*.egg-info", CACHE, "build", "dist", "data", "runs")


def installed_datasets() -> Distribution | None:
    try:
        return distribution("datasets")
    except PackageNotFoundError:
        return None


HUGGING_FACE = installed_datasets()
MISSING = [
    *([] if HUGGING_FACE else ["Hugging Face's datasets"]),
    *(name for name in ("pip", "setuptools") if find_spec(name) is None),
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (pip install -e '.[test]')")


# --- the wheel ------------------------------------------------------------------------------------------


def run(*command: str | Path, where: Path, **variables: str | Path) -> str:
    """Run a command in the folder `where` as a user's shell would, with these variables; return its standard output."""
    set_by_hand = ("PYTHON", "FLOWFERRY", "VIRTUAL_ENV", "PIP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(set_by_hand)}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= {name: str(value) for name, value in variables.items()}
    done = subprocess.run(list(map(str, command)), cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copied_sources(folder: Path) -> Path:
    """Copy what belongs to the project, as a fresh clone would have it: no caches, builds, data or environments."""
    listing = "git ls-files -z --cached --others --exclude-standard"
    try:
        listed = subprocess.run(listing.split(), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or no clone
        return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_SOURCES)))
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not deleted since
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def built(sources: Path, folder: Path) -> Path:
    """Build the wheel of `sources` into `folder`, as `pip install` would, with the setuptools that is here."""
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder, sources, where=sources)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, with caches in it, as a clone in use has them."""
    folder = copied_sources(tmp_path_factory.mktemp("sources") / "clone")
    for cache in (folder / CACHE, folder / "configs" / CACHE, folder / "tests" / CACHE):
        cache.mkdir()
        (cache / "left.cpython-311.pyc").touch()
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(sources, tmp_path_factory.mktemp("wheel"))


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return [name for name in archive.namelist() if not name.endswith("/")]


def test_the_wheel_holds_one_package_and_nothing_beside_it(wheel: Path) -> None:
    information = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name.split("/")[0] for name in names_in(wheel)} == {"flowferry", information}
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{information}/top_level.txt").decode().split() == ["flowferry"]


def test_the_wheel_holds_every_file_of_the_sources_and_the_shipped_weights(wheel: Path, sources: Path) -> None:
    rooms = [sources / room for room in ("configs", "datasets", "models", "pipelines")]
    files = [*sources.glob("*.py"), *(path for room in rooms for path in room.rglob("*") if path.is_file())]
    assert any(path.name == "model.safetensors" for path in files)
    wanted = {f"flowferry/{path.relative_to(sources).as_posix()}" for path in files if CACHE not in path.parts}
    assert {name for name in names_in(wheel) if name.startswith("flowferry/")} == wanted
    assert not [name for name in wanted if "tests" in name or "docs" in name or CACHE in name]


def test_what_an_older_build_left_behind_stays_out_of_the_wheel(tmp_path: Path) -> None:
    """`pip install .` leaves `build/lib` in the clone; that of version 0.1.0 holds a package called `datasets`."""
    clone = copied_sources(tmp_path / "clone")
    for name in ("configs", "datasets", "models", "pipelines"):
        (clone / "build" / "lib" / name).mkdir(parents=True)
        (clone / "build" / "lib" / name / "__init__.py").touch()
    wheel = built(clone, tmp_path / "wheel")
    assert {name.split("/")[0].partition("-")[0] for name in names_in(wheel)} == {"flowferry"}


# --- beside other packages ------------------------------------------------------------------------------


class Environment(NamedTuple):
    """A fresh environment with the packages of others."""

    folder: Path
    site: Path
    """Its site-packages."""
    before: dict[str, str]
    """The files there, before anything of this project came."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def flowferry(self) -> Path:
        return self.folder / "bin" / "flowferry"

    def install(self, wheel: Path) -> None:
        self._pip("install", "--no-deps", "--no-index", wheel)
        # Later on the path than what is installed here. Of the folders that it names, Python reads no .pth files, so
        # that an editable flowferry among the tests' own packages is out of sight.
        self._borrowed.write_text("\n".join(dependency_folders()) + "\n")

    def uninstall(self) -> None:
        self._borrowed.unlink()  # pip is to see what is installed here, and nothing else
        self._pip("uninstall", "--yes", "flowferry")

    def files(self) -> dict[str, str]:
        """Path -> SHA-256 of every file in site-packages, but for bytecode, which Python may write at any time."""
        return {
            path.relative_to(self.site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.site.rglob("*")
            if path.is_file() and CACHE not in path.parts and path != self._borrowed
        }

    @property
    def _borrowed(self) -> Path:
        return self.site / "dependencies-of-the-tests.pth"

    def _pip(self, verb: str, *options: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, verb, *options, where=self.folder)


def dependency_folders() -> list[str]:
    """Return where the environment of the tests has its packages, such as torch."""
    places = [*map(sysconfig.get_path, ("purelib", "platlib")), *site.getsitepackages()]
    return [path for path in dict.fromkeys(map(os.path.realpath, places)) if os.path.isdir(path)]


def make_environment(folder: Path) -> Environment:
    """Hugging Face's `datasets`, and a package `others-tools` that owns `models`, `configs` and `pipelines`."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    assert HUGGING_FACE is not None and HUGGING_FACE.files is not None
    for file in HUGGING_FACE.files:
        if ".." not in file.parts and CACHE not in file.parts:
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), packages / file)
    theirs = {f"{name}/__init__.py": f"OWNER = 'others {name}'\n" for name in ("models", "configs", "pipelines")}
    theirs["models/attention_unet.py"] = "OWNER = 'others module'\n"
    theirs["others_tools-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: others-tools\nVersion: 1.0\n"
    theirs["others_tools-1.0.dist-info/INSTALLER"] = "pip\n"
    theirs["others_tools-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in theirs)
    for name, text in theirs.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    environment = Environment(folder, packages, {})
    return environment._replace(before=environment.files())


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """With flowferry installed in it last."""
    made = make_environment(tmp_path_factory.mktemp("environment"))
    assert {"datasets/__init__.py", "models/__init__.py"} <= made.before.keys()
    made.install(wheel)
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An empty folder to run things in: nothing is found because it lies there."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


# In an environment where flowferry and the others are installed, after it has imported them in some order.
CHECKS = """
import json, sys
import configs, datasets, models, models.attention_unet, pipelines
from flowferry import Pipeline, launch
import flowferry.configs.schema, flowferry.datasets, flowferry.models.attention_unet

assert isinstance(datasets.Dataset, type) and datasets.Dataset.from_dict({"x": [1, 2]})["x"][1] == 2
assert (models.OWNER, configs.OWNER, pipelines.OWNER) == ("others models", "others configs", "others pipelines")
assert models.attention_unet.OWNER == "others module"
assert flowferry.datasets is not datasets and flowferry.models is not models
assert Pipeline.__module__.startswith("flowferry.")
print(json.dumps({name: module.__file__ for name, module in sys.modules.items() if getattr(module, "__file__", None)}))
"""
THEIRS = ("datasets", "models", "configs", "pipelines")


def assert_each_finds_its_own(python: Path, empty: Path, packages: Path, ours: Path, first: str) -> None:
    """Import what `first` says, then everything; modules of these names must come from `packages` or from `ours`."""
    told = run(python, "-c", f"{first}\n{CHECKS}", where=empty)
    files = json.loads(told.splitlines()[-1])
    for name, file in files.items():
        room = name.split(".")[0]
        if room in THEIRS:
            assert Path(file).is_relative_to(packages / room), name
        if room == "flowferry":
            assert Path(file).is_relative_to(ours), name


@pytest.mark.parametrize(
    "first", ["from flowferry import Pipeline; import datasets; datasets.Dataset", "import datasets, models, configs"]
)
def test_flowferry_and_the_others_are_imported_together(environment: Environment, empty: Path, first: str) -> None:
    packages = environment.site
    assert_each_finds_its_own(environment.python, empty, packages, packages / "flowferry", first)


def test_installing_changes_no_file_of_another_package(environment: Environment) -> None:
    after = environment.files()
    assert {name: after.get(name) for name in environment.before} == environment.before
    added = after.keys() - environment.before.keys()
    assert {name.split("/")[0].partition("-")[0] for name in added} == {"flowferry"}


MODULES = """
import pkgutil, flowferry

for module in pkgutil.walk_packages(flowferry.__path__, "flowferry."):  # which imports the packages among them
    print(module.name)
"""


def test_every_folder_of_the_sources_is_imported_and_every_file_found(
    environment: Environment, sources: Path, empty: Path
) -> None:
    rooms = [sources / room for room in ("configs", "datasets", "models", "pipelines")]
    files = [*sources.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    names = {".".join(("flowferry", *path.relative_to(sources).with_suffix("").parts)) for path in files}
    found = run(environment.python, "-c", MODULES, where=empty).split()
    assert {*found, "flowferry"} == {name.removesuffix(".__init__") for name in names}


GUARD = """
import os, socket

def refused(*asked, **options):
    with open(os.environ["ASKED"], "a") as log:
        print(*asked, file=log)
    raise OSError("there is no network here")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = socket.getaddrinfo = refused
"""


def test_the_command_translates_images_with_the_shipped_weights_and_asks_no_network(
    environment: Environment, empty: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD)  # which Python imports as it starts
    guarded = {"PYTHONPATH": tmp_path, "ASKED": tmp_path / "asked", "HF_HUB_OFFLINE": "0"}
    asking = "import contextlib, socket\nwith contextlib.suppress(OSError): socket.create_connection(('localhost', 9))"
    run(environment.python, "-c", asking, where=empty, **guarded)
    assert (tmp_path / "asked").read_text().startswith("localhost 9")
    (tmp_path / "asked").unlink()
    assert "fashion2mnist" in run(environment.flowferry, "list", where=empty)
    (empty / "garments").mkdir()
    for name, level in (("a.png", 60), ("b.png", 180)):
        garment = Image.new("L", (28, 28))
        garment.paste(level, (8, 4, 20, 24))
        garment.save(empty / "garments" / name)
    options = "--pipeline fashion2mnist --input garments --output out".split()
    run(environment.flowferry, "translate", *options, where=empty, **guarded)
    assert not (tmp_path / "asked").exists()
    digits = [Image.open(empty / "out" / name) for name in ("a.png", "b.png")]
    assert [digit.size for digit in digits] == [(28, 28)] * 2
    assert all(low < 64 and high > 128 for low, high in (digit.convert("L").getextrema() for digit in digits))
    assert sorted(path.name for path in empty.iterdir()) == ["garments", "out"]


def test_uninstalling_takes_back_all_of_ours_and_nothing_else(wheel: Path, empty: Path, tmp_path: Path) -> None:
    environment = make_environment(tmp_path / "environment")
    environment.install(wheel)
    run(environment.flowferry, "list", where=empty)
    environment.uninstall()
    assert environment.files() == environment.before
    assert not list(environment.site.glob("flowferry*")) and not environment.flowferry.exists()
    told = run(environment.python, "-c", "import models, configs; print(models.OWNER, configs.OWNER)", where=empty)
    assert told.strip() == "others models others configs"


def test_an_editable_installation_works_beside_the_others(sources: Path, empty: Path, tmp_path: Path) -> None:
    """As `pip install -e .` makes it, and from the clone itself as the README's commands are run."""
    environment = make_environment(tmp_path / "environment")
    code = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    run(sys.executable, "-c", code, tmp_path, where=sources)
    (wheel,) = tmp_path.glob("*.whl")
    environment.install(wheel)
    assert_each_finds_its_own(environment.python, empty, environment.site, sources, "import flowferry")
    told = run(environment.flowferry, "list", where=empty)
    assert told == run(environment.python, "launch.py", "list", where=sources)
    environment.uninstall()
    assert environment.files() == environment.before
