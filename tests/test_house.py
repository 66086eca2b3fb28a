"""The rooms of the house: who may import whom, how large things may grow, and what must not be imported early."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("configs", "datasets", "models", "pipelines")
MAX_FILE, MAX_FUNCTION = 250, 45  # lines


def module_name(path: Path) -> str:
    parts = ("flowferry", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


FILES = {
    module_name(path): path
    for path in (ROOT / "__init__.py", ROOT / "launch.py", *(p for room in ROOMS for p in (ROOT / room).rglob("*.py")))
}


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere in it; of `from room import module`, the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute"
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in full.values()}
    return found


IMPORTS = {name: imported(path) for name, path in FILES.items()}
OURS = {name: {other for other in found if other in FILES} for name, found in IMPORTS.items()}


def room_of(module: str) -> str:
    """Return the room of a module: a folder, or "verbs" for the files at the root of pipelines/."""
    _, *parts = module.split(".")
    if parts[:1] == ["pipelines"]:
        return parts[1] if len(parts) > 2 or (parts[1:] and FILES[module].name == "__init__.py") else "verbs"
    return parts[0] if parts else "package"


def libraries(module: str) -> set[str]:
    """Return what a module imports that is neither ours nor Python's."""
    return {name.split(".")[0] for name in IMPORTS[module] - OURS[module]} - set(sys.stdlib_module_names)


def test_the_house_is_found() -> None:
    expected = {"launch", "configs.schema", "datasets.base", "models.course_unet", "pipelines.flow.paths"}
    assert {f"flowferry.{name}" for name in expected} <= OURS.keys()
    assert "flowferry.configs.validation" in OURS["flowferry.launch"]
    assert "flowferry.pipelines.storage.weights" in OURS["flowferry.pipelines.pretrained"]
    assert room_of("flowferry.pipelines.flow.paths") == room_of("flowferry.pipelines.flow") == "flow"
    assert room_of("flowferry.pipelines.train") == "verbs" and room_of("flowferry.models") == "models"


def test_every_import_of_ours_is_a_module_of_ours() -> None:
    """A name that moved would otherwise only fail where its line runs."""
    missing = {
        (module, name)
        for module, found in IMPORTS.items()
        for name in found
        if name.split(".")[0] in ("flowferry", *ROOMS) and name not in FILES
    }
    assert not missing


def test_imports_run_one_way() -> None:
    try:
        tuple(TopologicalSorter(OURS).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' → '.join(error.args[1])}")


BELOW = {
    "package": {"verbs"},  # `from flowferry import Pipeline`
    "launch": {"configs"},  # and the verbs, by the names in its table
    "configs": set(),
    "flow": set(),
    "datasets": {"configs"},
    "models": {"configs", "flow"},
    "storage": {"configs", "datasets"},
    "visualization": {"configs", "datasets", "flow", "storage", "verbs"},
    "evaluation": {"configs", "datasets", "models", "flow", "storage", "visualization", "verbs"},
    "translation": {"configs", "datasets", "storage", "visualization", "verbs"},
    "training": {"configs", "datasets", "models", "flow", "storage", "evaluation", "verbs"},
    "serving": {"configs", "datasets", "models", "flow", "storage", "translation", "visualization", "verbs"},
    "publishing": {"configs", "datasets", "models", "flow", "storage", "evaluation", "training", "verbs"},
}
"""The rooms that each room may import from, beside itself; the verbs may import from all."""

SHARED = {"pipeline", "pretrained", "editing", "optimizers", "hardware"}
"""What the rooms may import from the root of pipelines/, whose other files are verbs."""

ABOVE_VERBS = {"serving": {"translate", "translate_file", "edit", "sample"}}
"""The verbs whose work a room does for others than the command line, in the words of their options."""


@pytest.mark.parametrize("module", OURS)
def test_each_room_imports_from_the_rooms_below_it(module: str) -> None:
    room = room_of(module)
    if room != "verbs":
        assert {room_of(other) for other in OURS[module]} - {room} <= BELOW[room]
        verbs = {other.rpartition(".")[2] for other in OURS[module] if room_of(other) == "verbs"}
        assert verbs <= SHARED | ABOVE_VERBS.get(room, set())


@pytest.mark.parametrize("module", [module for module in OURS if module.startswith("flowferry.configs")])
def test_the_configuration_needs_nothing_heavy(module: str) -> None:
    knows_tyro = module in {f"flowferry.configs.{name}" for name in ("cli", "options", "file_options", "parse_errors")}
    assert libraries(module) <= {"dacite"} | ({"tyro"} if knows_tyro else set())


@pytest.mark.parametrize("module", [module for module in OURS if room_of(module) == "flow"])
def test_the_mathematics_needs_torch_alone(module: str) -> None:
    assert libraries(module) <= {"torch"}


def test_only_verbs_know_the_options_of_the_command_line() -> None:
    options = {f"flowferry.configs.{name}" for name in ("options", "file_options", "serve_options")}
    knows = {module for module, found in OURS.items() if options & found}
    assert {room_of(module) for module in knows} == {"verbs", "configs", "launch", *ABOVE_VERBS}


def test_only_what_runs_on_several_processes_or_keeps_weights_aside_knows_accelerate() -> None:
    knows = sorted(
        module.removeprefix("flowferry.pipelines.") for module in IMPORTS if "accelerate" in libraries(module)
    )
    training = ["training.adversary", "training.distributed", "training.step"]
    assert knows == ["diffusers_pipeline", *training, "translate_tree"]


def test_the_table_of_verbs_names_modules_and_options_that_exist() -> None:
    from flowferry.configs import options
    from flowferry.launch import VERBS

    for verb in VERBS.values():
        assert hasattr(options, verb.options)
        assert not verb.module or f"flowferry.pipelines.{verb.module}" in FILES


@pytest.mark.parametrize("module", FILES)
def test_no_file_and_no_function_grows_too_long(module: str) -> None:
    text = FILES[module].read_text()
    assert len(text.splitlines()) <= MAX_FILE
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: n for f in functions if (n := (f.end_lineno or 0) - f.lineno + 1) > MAX_FUNCTION}
    assert not long


@pytest.mark.parametrize("module", ["launch", "configs.cli", "configs.listing"])
def test_the_front_door_opens_without_anything_heavy(module: str) -> None:
    heavy = ("torch", "torchvision", "numpy", "PIL", "accelerate", "matplotlib", "tensorboard", "safetensors")
    code = f"import sys, flowferry.{module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_translate_and_train_begin_without_what_they_do_not_need() -> None:
    """To import torchvision takes longer than torch, and longer than to translate a thousand garments in one step."""
    verbs = ("translate", "train")
    code = "\n".join(["import sys", *(f"import flowferry.pipelines.{verb}; print(*sys.modules)" for verb in verbs)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    translate, train = map(str.split, done.stdout.splitlines())
    assert not {"torchvision", "scipy", "matplotlib", "tifffile", "torchmetrics"} & set(translate)
    assert not {"torchvision", "torchmetrics", "torch._dynamo"} & set(train)


def test_the_pipeline_comes_with_neither_the_command_line_nor_an_optimizer() -> None:
    code = "import sys; from flowferry import Pipeline; print(*(m for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("flowferry.")}
    assert "tyro" not in loaded and "accelerate" not in loaded
    assert not ours & {"flowferry.configs.cli", "flowferry.configs.options", "flowferry.pipelines.optimizers"}
    assert not {name for name in ours if re.match(r"flowferry\.pipelines\.(training|evaluation|translation|vis)", name)}
