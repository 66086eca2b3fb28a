"""Long runs: what a run holds does not grow with its steps."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowferry.pipelines.train import Trainer
from tiny_runs import config_of, metrics


def held() -> tuple[int, int, int]:
    """This process's memory in kB, its open files and its threads."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]), len(os.listdir("/proc/self/fd")), int(status["Threads"])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux what the process holds")
@pytest.mark.parametrize("name", ["moons", "fashion2mnist"])
def test_memory_files_and_threads_stay_the_same_over_20_000_steps(tiny: Callable, tmp_path: Path, name: str) -> None:
    """With a checkpoint every 500 steps, TensorBoard's writer and, for images, transport."""
    config = config_of(tiny, 20_000, name, epochs=10**6, checkpoint_steps=500, batch_size=8)
    trainer = Trainer(config, tmp_path, data_root=Path("data"))
    advance, found = trainer.advance, {}

    def stepped() -> None:
        advance()
        if trainer.progress.step % 2000 == 0:
            found[trainer.progress.step] = held()

    trainer.advance = stepped  # type: ignore[method-assign]
    assert trainer.run() == 0
    assert len(metrics(tmp_path)) == 20_000
    memory, files, threads = zip(*(found[at] for at in range(4000, 20_001, 2000)), strict=True)
    assert len(set(files)) == 1 and len(set(threads)) == 1, found
    assert memory[-1] - memory[0] < 10_000, found  # kB; what loses 1 kB a step loses 16,000
