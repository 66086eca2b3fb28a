"""Files made to do harm: nothing of them is run, nothing outside is written, and the answer is one line."""

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from flowferry import Pipeline, launch
from flowferry.configs.images import ReadConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config, read_config
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import decode
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import write_json
from flowferry.pipelines.train import Trainer
from tiny_runs import config_of, trained


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.proof,)


@pytest.fixture(scope="module")
def a_run(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on synthetic images."""
    return trained(config_of(tiny, 2), tmp_path_factory.mktemp("run")).folder


def uses(run: Path, out: Path) -> list[list[str]]:
    """Commands that read a run's folder."""
    return [
        ["translate", "--pipeline", str(run), "--input", str(run / "samples"), "--output", str(out)],
        ["evaluate", "--pipeline", str(run), "--count", "16", "--skip-cost"],
        ["report", "--pipeline", str(run)],
        ["export", "--pipeline", str(run), "--output", str(out / "exported")],
        ["list"],
    ]


def test_a_pickle_in_the_place_of_any_file_is_not_run(a_run: Path, tmp_path: Path) -> None:
    """Of every file of a run, and of some that other software would look for."""
    proof = tmp_path / "it-ran"
    payload = pickle.dumps(Payload(proof))
    pickle.loads(payload)
    assert proof.exists(), "the payload works"
    proof.unlink()
    names = [str(path.relative_to(a_run)) for path in a_run.rglob("*") if path.is_file()]
    others = ["optimizer.bin", "model/pytorch_model.bin", "checkpoints/random_states_0.pkl", "custom_checkpoint_0.pkl"]
    config = read_config(a_run / "config.json")
    for name in [*names, *others]:
        run = tmp_path / "run"
        shutil.copytree(a_run, run)
        (run / name).write_bytes(payload)
        with suppress(UserError):
            Trainer(config, run, data_root=Path("data")).run()
        for command in uses(run, tmp_path / "out")[:1] if name not in names[:3] else uses(run, tmp_path / "out"):
            assert launch.main(command) in (0, 1, 2)
        assert not proof.exists(), name
        shutil.rmtree(run)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "..", "a\0b"])
def test_a_pipeline_s_name_leads_nowhere(a_run: Path, tmp_path: Path, name: str) -> None:
    """The name in a configuration from somebody else becomes a folder's name where there is no run folder."""
    folder = tmp_path / "theirs"
    shutil.copytree(a_run / "model", folder)
    content = json.loads((folder / "config.json").read_text())
    content["config"]["name"] = name
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json: name: got .*, expected letters, digits, spaces and \. \+ - _$"):
        Pipeline.from_pretrained(folder)


@pytest.mark.parametrize("changes", [{"width": 60_000}, {"width": 2**40}])
def test_a_configuration_that_asks_for_all_memory_is_refused_before_it_is_given(
    a_run: Path, tmp_path: Path, changes: dict[str, int]
) -> None:
    folder = tmp_path / "theirs"
    shutil.copytree(a_run / "model", folder)
    content = json.loads((folder / "config.json").read_text())
    content["config"]["model"] |= changes
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError):
        Pipeline.from_pretrained(folder)


# --- fuzzing: any input is taken or refused as a user's error -------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def places(data: Any) -> list[tuple[Any, ...]]:
    """The ways to each entry of nested dicts."""
    if not isinstance(data, dict):
        return [()]
    return [(), *((key, *rest) for key, value in data.items() for rest in places(value))]


CONFIGS = [json.loads(json.dumps(config.to_dict())) for config in PIPELINES.values()]


@st.composite
def damaged_configs(draw: Callable) -> Any:
    """A named configuration with some entries exchanged, left out or added."""
    config = json.loads(json.dumps(draw(st.sampled_from(CONFIGS))))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(config)))
        if not way:
            return draw(JSON)
        inner = config
        for key in way[:-1]:
            inner = inner[key]
            if not isinstance(inner, dict):
                break
        else:
            match draw(st.sampled_from(["exchange", "leave out", "add"])):
                case "exchange":
                    inner[way[-1]] = draw(JSON)
                case "leave out":
                    inner.pop(way[-1], None)
                case _:
                    inner[draw(st.text(max_size=8))] = draw(JSON)
    return config


def a_configuration(data: Any, folder: Path) -> None:
    try:
        config = Config.from_dict(data)
    except UserError as error:
        assert str(error)
        return
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def a_configuration_s_file(data: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(data)
    with pytest.raises(UserError):
        read_config(folder / "config.json")


def image_bytes() -> list[bytes]:
    made = []
    for kind, modes in {"PNG": "1 L LA P RGB RGBA I;16", "JPEG": "L RGB CMYK", "GIF": "P", "BMP": "1 L P RGB"}.items():
        for mode in modes.split():
            image = Image.new("I;16" if mode == "I;16" else mode, (9, 7))
            file = BytesIO()
            image.save(file, kind)
            made.append(file.getvalue())
    for kind in ("TIFF", "WEBP"):
        file = BytesIO()
        Image.new("RGB", (9, 7), "red").save(file, kind)
        made.append(file.getvalue())
    for array in (np.zeros((7, 9), np.float32), np.zeros((4, 7, 9), np.uint16), np.zeros((7, 9, 7), np.uint8)):
        file = BytesIO()
        np.save(file, array)
        made.append(file.getvalue())
        file = BytesIO()
        tifffile.imwrite(file, array, photometric="minisblack", compression="zlib")
        made.append(file.getvalue())
    return made


IMAGES = image_bytes()


@st.composite
def damaged_bytes(draw: Callable, files: list[bytes]) -> bytes:
    """A whole file with some bytes exchanged, inserted, taken out, or an end cut off."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        new = draw(st.binary(min_size=1, max_size=4))
        match draw(st.sampled_from(["exchange", "insert", "take out", "cut"])):
            case "exchange":
                data[at : at + len(new)] = new
            case "insert":
                data[at:at] = new
            case "take out":
                del data[at : at + len(new)]
            case _:
                del data[max(at, 1) :]
    return bytes(data)


def an_image(data: bytes, folder: Path) -> None:
    for channels in (1, 3, 4, 7):
        try:
            assert decode(data, channels, ReadConfig()).pixels.shape[2] == channels
        except UserError as error:
            assert str(error)


def weights_of_another_network(data: bytes, folder: Path) -> None:
    """Whole tensors of the file do not fit the network beside it either."""
    write_json(folder / "config.json", weights.describe(PIPELINES["moons"]))
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError):
        Pipeline.from_pretrained(folder)


WEIGHTS = save({"a": torch.zeros(3), "b": torch.ones(2, 2)}, metadata=weights.metadata(PIPELINES["moons"], 3))
BYTES = st.binary(max_size=300)
CASES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, Path], None]]] = {
    "configuration": (damaged_configs(), a_configuration),
    "configuration file": (BYTES | JSON.map(lambda data: json.dumps(data).encode()), a_configuration_s_file),
    "image": (damaged_bytes(IMAGES) | BYTES, an_image),
    "weights": (damaged_bytes([WEIGHTS]) | BYTES, weights_of_another_network),
}


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", CASES)
def test_any_input_is_taken_or_refused_as_a_user_s_error(what: str, count: int, tmp_path: Path) -> None:
    cases, check = CASES[what]

    @settings(max_examples=count, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def fuzz(case: Any) -> None:
        check(case, tmp_path)

    fuzz()


@pytest.mark.parametrize("length", [0, 5, 3_000, -100])
def test_weights_that_were_cut_off_have_no_digest(length: int, a_run: Path, tmp_path: Path) -> None:
    shutil.copytree(a_run / "model", tmp_path / "cut")
    file = tmp_path / "cut" / weights.WEIGHTS
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        weights.digest(tmp_path / "cut")
