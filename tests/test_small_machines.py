"""Machines that are short of something: shared memory as in Docker, file descriptors, locks, fsync, Unicode."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowferry.configs.components import ImageFolderConfig
from flowferry.datasets.image_folder import image_folder
from tiny_runs import ROOT, assert_same_run
from translations import contents

SHAPE = (3, 64, 64)
FEW_FILES = 40  # file descriptors
PATIENCE = 240  # seconds, in which a command that does not hang ends on a slow machine


def photographs(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, SHAPE[1:] + SHAPE[:1], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers"), **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE)


def with_few_files(*command: str) -> list[str]:
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)"
    return [sys.executable, "-c", f"{limit}; os.execv(sys.argv[2], sys.argv[2:])", str(FEW_FILES), *command]


def with_little_shared_memory(*command: str) -> list[str]:
    small = 'mount -t tmpfs -o size=256k none /dev/shm && exec "$@"'
    unshare = ["unshare", "--mount", "sh", "-c", small, "sh"]
    if os.geteuid() != 0 or run([*unshare, "true"]).returncode:
        pytest.skip("a small /dev/shm of its own needs root and unshare")
    return [*unshare, *command]


DRAW = """
import hashlib, sys, torch
from flowferry.configs.components import ImageFolderConfig
from flowferry.datasets.image_folder import image_folder
config = ImageFolderConfig(root=sys.argv[1], cache_mb=int(sys.argv[2]))
images = image_folder(config, (3, 64, 64), "train", torch.device("cpu"))
digest = hashlib.sha256()
for step in (0, 1, 2, 3, 4, 5, 6, 7, 30, 31, 32, 33):
    digest.update(images.draw(24, seed=0, step=step).samples.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("small", [with_few_files, with_little_shared_memory])
@pytest.mark.parametrize("cache_mb", ["0", "2048"], ids=["streamed", "cached"])
def test_a_folder_is_read_with_few_file_descriptors_and_little_shared_memory(tmp_path, small, cache_mb):
    """Worker processes that passed tensors would hang here, or die of it."""
    import torch

    root = photographs(tmp_path / "in", 600)
    images = image_folder(ImageFolderConfig(root=str(root)), SHAPE, "train", torch.device("cpu"))
    digest = hashlib.sha256()
    for step in (*range(8), *range(30, 34)):
        digest.update(images.draw(24, seed=0, step=step).samples.numpy().tobytes())
    done = run(small(sys.executable, "-c", DRAW, str(root), cache_mb))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.strip() == digest.hexdigest()


TRAIN_AND_TRANSLATE = """
import sys
from flowferry import launch
source, target, out, *train = sys.argv[1:]
place = ["--output-dir", f"{out}/run"]
code = launch.main(["--pipeline", "folders", "--source.root", source, "--target.root", target, *place, *train])
sys.exit(code or launch.main(["translate", "--pipeline", f"{out}/run", "--input", source, "--output", f"{out}/made"]))
"""


def test_a_run_and_a_translation_need_few_file_descriptors(tmp_path):
    """Streamed images, TensorBoard, checkpoints and pictures included."""
    source, target = photographs(tmp_path / "in", 24), photographs(tmp_path / "on", 40)
    argv = "--source.cache-mb 0 --target.cache-mb 0 --shape 3 16 16 --model.widths 16 16 --model.attention False"
    argv += " --model.middle 8 --solver.steps 2 --train.max-steps 6 --train.batch-size 8 --train.threads 1"
    for name, limited in (("plenty", lambda *command: list(command)), ("few", with_few_files)):
        command = (sys.executable, "-c", TRAIN_AND_TRANSLATE, str(source), str(target), str(tmp_path / name))
        done = run(limited(*command, *argv.split()))
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "few" / "run", tmp_path / "plenty" / "run", 6)
    made = contents(tmp_path / "few" / "made")
    assert made == contents(tmp_path / "plenty" / "made") and len(made) == 24 + 1
    assert json.loads((tmp_path / "few" / "run" / "config.json").read_text())["data"] == "real"
