"""The rooms of the house: who may import whom, and what must not be imported early."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("configs", "datasets", "models", "pipelines")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {
    module_name(path): path
    for path in (ROOT / "launch.py", *(p for room in ROOMS for p in (ROOT / room).rglob("*.py")))
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere in it; of `from room import module`, the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in full.values()}
    return found


IMPORTS = {name: imported(path) for name, path in FILES.items()}
OURS = {name: {other for other in found if other in FILES} for name, found in IMPORTS.items()}


def test_the_house_is_found() -> None:
    assert {"launch", "configs.schema", "datasets.sampler", "models.course_unet", "pipelines.paths"} <= OURS.keys()
    assert "configs.checks" in OURS["launch"]
    assert "pipelines.weights" in OURS["pipelines.pipeline"]


def test_imports_run_one_way() -> None:
    try:
        tuple(TopologicalSorter(OURS).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("room", ["configs", "pipelines"])
def test_the_readme_has_a_place_for_each_file(room: str) -> None:
    told = (ROOT / "README.md").read_text().split("## How it is built")[1]
    missing = [p.name for p in (ROOT / room).glob("*.py") if f"{p.name}`" not in told and p.name != "__init__.py"]
    assert not missing


ALLOWED = {
    "launch": {"configs", "pipelines"},
    "configs": {"configs"},
    "datasets": {"configs", "datasets"},
    "models": {"configs", "models"},
    "pipelines": {"configs", "datasets", "models", "pipelines"},
}


@pytest.mark.parametrize("module", OURS)
def test_each_room_imports_from_the_rooms_below_it(module: str) -> None:
    rooms = {other.split(".")[0] for other in OURS[module]}
    assert rooms <= ALLOWED[module.split(".")[0]]


def libraries(module: str) -> set[str]:
    """What a module imports that is neither ours nor Python's."""
    return {name.split(".")[0] for name in IMPORTS[module] - OURS[module]} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", [module for module in OURS if module.startswith("configs")])
def test_the_configuration_needs_nothing_heavy(module: str) -> None:
    assert libraries(module) <= {"dacite", "tyro"}


@pytest.mark.parametrize("module", ["pipelines.paths", "pipelines.solvers", "pipelines.guidance"])
def test_the_mathematics_needs_torch_alone(module: str) -> None:
    assert libraries(module) == {"torch"}
    assert OURS[module] <= {"pipelines.paths", "pipelines.solvers"}


def test_only_what_runs_on_several_processes_knows_accelerate() -> None:
    knows = [module for module in IMPORTS if "accelerate" in libraries(module)]
    assert sorted(knows) == ["pipelines.trainer", "pipelines.translate"]


@pytest.mark.parametrize("module", ["launch", "configs.cli", "configs.listing"])
def test_the_front_door_opens_without_anything_heavy(module: str) -> None:
    heavy = ("torch", "torchvision", "numpy", "PIL", "accelerate", "matplotlib", "tensorboard", "safetensors")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
