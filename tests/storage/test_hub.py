"""Weights that travel: to a hub and back through the real client library, and to diffusers."""

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from flowferry import Pipeline, launch
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.diffusers_network import FlowferryNetwork
from flowferry.pipelines.flow.solvers import SOLVERS, Velocity, trajectory
from flowferry.pipelines.flow.times import time_grid
from flowferry.pipelines.storage import hub, weights
from flowferry.pipelines.storage.weights import SYNTHETIC
from flowferry.pipelines.train import Trainer
from tiny_diffusers import encoder, stage_1, unconditional

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as the client needs to create, commit, list and fetch. One repository."""

    files: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}/user/name"

    def answer(self, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, **what: object) -> None:
        self.answer(json.dumps(what).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        if "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self.tell(files=[{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths])
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.tell(
                success=True,
                commitOid=COMMIT,
                commitUrl=f"http://{self.headers['Host']}/user/name/commit/{COMMIT}",
                hookOutput="",
            )
        elif self.path.endswith("/create"):
            self.tell(url=self.address, name="user/name", id="0")
        else:
            self.tell(errors=[], warnings=[])

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        if "/resolve/" in self.path and name in self.files:
            headers = {"ETag": f'"{hash(self.files[name])}"', "X_Repo_Commit": COMMIT}
            self.answer(self.files[name], "application/octet-stream", **headers)
        elif "/tree/" in self.path:
            files = [{"type": "file", "path": n, "size": len(d), "oid": str(hash(d))} for n, d in self.files.items()]
            self.answer(json.dumps(files).encode())
        elif self.path.startswith("/api/models/user/name"):
            siblings = [{"rfilename": file} for file in self.files]
            self.tell(id="user/name", sha=COMMIT, siblings=siblings, private=False, tags=[], downloads=0)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def a_hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment in which huggingface_hub talks to a hub of ours."""
    Hub.files, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    yield {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    server.shutdown()


def python(code: str, environment: dict[str, str], *argv: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


THERE_AND_BACK = """
import sys, torch
from flowferry import Pipeline, launch
mine = Pipeline.from_pretrained(sys.argv[1])
print(mine.push_to_hub("user/name", results={"held-out loss": 0.125}))
theirs = Pipeline.from_pretrained("user/name")
assert theirs.config == mine.config
mine, theirs = mine.model.state_dict(), theirs.model.state_dict()
assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
assert launch.main(["sample", "--pipeline", "user/name", "--count", "2", "--output", sys.argv[2]]) == 0
"""


def test_weights_go_to_a_hub_and_come_back(tiny: Callable[..., Config], a_hub: dict[str, str], tmp_path: Path) -> None:
    config = tiny("noise2mnist-cfg")
    Pipeline(replace(config, solver=replace(config.solver, num_steps=1))).save_pretrained(tmp_path / "mine")
    Hub.files["payload.pkl"] = pickle.dumps("anything")
    python(THERE_AND_BACK, a_hub, tmp_path / "mine", tmp_path / "sampled")
    assert Hub.files.keys() == {"payload.pkl", "config.json", "model.safetensors", "README.md"}
    fetched = [path for path in Hub.asked if "/resolve/" in path]
    assert fetched and not [path for path in fetched if "payload" in path or "README" in path]
    card = Hub.files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: flowferry")
    for told in ("patch-unet", SYNTHETIC, "measured: held-out loss | 0.125", 'from_pretrained("user/name")'):
        assert told in card
    assert len(list((tmp_path / "sampled").glob("*.png"))) == 3


def test_weights_that_no_hub_has_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*given: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"someone/weights: no such folder here.*no network"):
        Pipeline.from_pretrained("someone/weights")
    with pytest.raises(UserError, match="unknown pipeline: got 'no-such-folder', expected fashion2mnist"):
        Pipeline.from_pretrained("no-such-folder")
    assert launch.main("sample --pipeline someone/weights".split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(UserError, match="user/name"):
        hub.push(Path(), "../elsewhere/x", private=False, token=None)
    monkeypatch.setattr(hub, "snapshot_download", None)  # a run that is not there is nobody's user/name
    with pytest.raises(UserError, match="no weights in runs/mine: train them first"):
        Pipeline.from_pretrained("runs/mine")


def test_export_writes_the_weights_of_a_run_and_a_card_with_what_was_measured(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny("fashion2mnist-published")
    train = replace(config.train, max_steps=3, batch_size=8, threads=1)
    config = replace(config, train=train, solver=replace(config.solver, num_steps=2))
    assert Trainer(config, tmp_path / "run", data_root=Path()).run() == 0
    assert launch.main(["export", "--pipeline", str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run" / "model", tmp_path / "out"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    measured = [
        json.loads(line)["eval/loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1:]
    ]
    assert f"held-out loss | {measured[0]:g} |" in (tmp_path / "out" / "README.md").read_text()
    Pipeline.from_pretrained(tmp_path / "out")


# --- diffusers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, steps",
    [
        ("noise2mnist", 7),
        ("noise2mnist-cfg", 5),
        ("noise2cifar", 3),
        ("ddpm-mnist", 300),
    ],
)
def test_diffusers_runs_an_exported_pipeline_to_our_images(
    name: str, steps: int, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    """From the same noise, and with the same noise added on the way."""
    config = tiny(name)
    config = replace(config, solver=replace(config.solver, num_steps=steps))
    torch.manual_seed(1)
    mine = Pipeline(config)
    mine.save_pretrained(tmp_path / "mine")
    argv = ["export", "--format", "diffusers", "--pipeline", tmp_path / "mine", "--output", tmp_path / "theirs"]
    assert launch.main(list(map(str, argv))) == 0
    theirs = DiffusionPipeline.from_pretrained(tmp_path / "theirs")
    assert isinstance(theirs.unet, FlowferryNetwork)
    theirs.set_progress_bar_config(disable=True)
    found = theirs(
        batch_size=1, num_inference_steps=steps, generator=torch.Generator().manual_seed(3), output_type="pt"
    ).images
    g = torch.Generator().manual_seed(3)
    x0 = torch.randn(1, *config.shape, generator=g)
    expected = ours(mine, x0, g)
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1), rtol=0, atol=2e-4)
    assert expected.std() > 0.1


def velocity_of(pipeline: Pipeline, x: torch.Tensor, labels: torch.Tensor | None = None) -> Velocity:
    """Return the velocity along which the pipeline carries x to the classes `labels`."""
    seen: list[Velocity] = []

    def keep(velocity: Velocity) -> Velocity:
        seen.append(velocity)
        return velocity

    next(pipeline.trajectory(x, labels, edit_velocity=keep))
    return seen[0]


def ours(pipeline: Pipeline, x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Return where our solver's steps lead, with noise from `g`."""
    solver = SOLVERS[pipeline.config.solver.name]
    step = solver.make_step(velocity_of(pipeline, x), pipeline.path, lambda x: torch.randn(x.shape, generator=g))
    *_, end = trajectory(step, x, time_grid(pipeline.config.solver.num_steps))
    return end


def test_an_exported_network_is_guided_where_it_is_given_classes(tiny: Callable[..., Config], tmp_path: Path) -> None:
    torch.manual_seed(1)
    mine = Pipeline(tiny("noise2mnist-cfg"))
    mine.save_pretrained(tmp_path / "mine")
    argv = ["export", "--format", "diffusers", "--pipeline", tmp_path / "mine", "--output", tmp_path / "theirs"]
    assert launch.main(list(map(str, argv))) == 0
    network = DiffusionPipeline.from_pretrained(tmp_path / "theirs").unet
    x, labels = torch.randn(4, 1, 28, 28), torch.arange(4)
    with torch.no_grad():
        found = network(x, 25.0, class_labels=labels).sample
        expected = velocity_of(mine, x, labels)(x, torch.tensor(0.5))
    torch.testing.assert_close(found, -expected)


@pytest.mark.parametrize("name", ["fashion2mnist-published", "moons", "denoise-noise"])
def test_what_diffusers_has_no_pipeline_for_is_refused(
    name: str, tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Pipeline(tiny(name)).save_pretrained(tmp_path / "mine")
    argv = ["export", "--format", "diffusers", "--pipeline", tmp_path / "mine", "--output", tmp_path / "theirs"]
    assert launch.main(list(map(str, argv))) == 2
    assert "error: --format diffusers: got " in (message := capsys.readouterr().err) and "expected " in message
    assert not (tmp_path / "theirs").exists()


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder of user/name as the hub has it, and which of its files are fetched into the cache."""
    there, fetched = tmp_path / "there", list[str]()
    cached = tmp_path / "cache" / "models--user--name" / "snapshots" / COMMIT

    def fetch(name: str, *, allow_patterns: list[str], ignore_patterns: list[str], **asked: object) -> str:
        assert name == "user/name" and asked.get("revision") in (None, COMMIT)
        files = [file.relative_to(there).as_posix() for file in there.rglob("*") if file.is_file()]
        wanted = filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        for file in set(wanted) - set(fetched):
            fetched.append(file)
            (cached / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there / file, cached / file)
        return str(cached)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    yield there, fetched


def test_of_a_pipeline_of_diffusers_only_what_is_used_is_fetched(repository: tuple[Path, list[str]]) -> None:
    there, fetched = repository
    encoder(stage_1(there))
    for name in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "t5.safetensors"):
        (there / name).write_bytes(b"anything")
    pipe = Pipeline.from_diffusers("user/name", device="cpu")
    assert pipe.config.name == "name"
    used = {"model_index.json", "scheduler/scheduler_config.json", "unet/config.json"}
    assert set(fetched) == used | {"unet/diffusion_pytorch_model.safetensors"}
    pipe.with_prompts(["a man"])
    assert {"text_encoder/model.safetensors", "tokenizer/tokenizer.json"} <= set(fetched)
    assert not [name for name in fetched if name.endswith(".bin") or "fp16" in name]


def test_an_old_pipeline_of_diffusers_lies_in_one_folder(repository: tuple[Path, list[str]], tmp_path: Path) -> None:
    there, fetched = repository
    unconditional(tmp_path / "new", levels=4)
    there.mkdir()
    for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        shutil.copyfile(tmp_path / "new" / name, there / Path(name).name)
    shutil.copyfile(tmp_path / "new" / "scheduler" / "scheduler_config.json", there / "scheduler_config.json")
    one, other = (
        Pipeline.from_pretrained("user/name", device="cpu"),
        Pipeline.from_diffusers(tmp_path / "new", device="cpu"),
    )
    assert torch.equal(one.sample(1), other.sample(1))
    assert len(fetched) == 4
    assert weights.digest(tmp_path / "new") != weights.digest(unconditional(tmp_path / "longer", levels=5))
