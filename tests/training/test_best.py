"""The best weights by a chosen measure, on evaluations whose values are given."""

import logging
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowferry import Pipeline
from flowferry.configs.locations import classifier_folder
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import weights
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training.best import BestWeights
from flowferry.pipelines.training.validation import Validation
from flowferry.pipelines.visualization.select import Visuals
from tiny_runs import assert_same_tensors, config_of, trained

SCRIPT = {4: 20.0, 8: 22.0, 12: 21.0, 16: math.nan}
"""Step -> PSNR."""


@pytest.fixture
def config(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Config:
    """Sixteen steps, four to an epoch, whose evaluations are those of the script."""
    values = dict(SCRIPT)

    def measure(self: Validation, pipeline: Pipeline) -> dict[str, float]:
        return {"eval/loss": 1.0, "eval/psnr": values[pipeline.evaluated_step]}  # type: ignore[attr-defined]

    evaluate = Trainer.evaluate

    def evaluate_at(trainer: Trainer) -> None:
        trainer.eval_pipeline.evaluated_step = trainer.progress.step  # type: ignore[attr-defined]
        evaluate(trainer)

    monkeypatch.setattr(Trainer, "evaluate", evaluate_at)
    monkeypatch.setattr(Validation, "measure", measure)
    monkeypatch.setattr(Validation, "measured", ("loss", "psnr"))
    monkeypatch.setattr("flowferry.pipelines.train.visuals", lambda config: Visuals(lambda *_: {}, lambda *_: []))
    return config_of(tiny, 16, epochs=4, show_epochs=1, checkpoint_steps=5, best="psnr")


@pytest.mark.parametrize(
    ("measure", "before", "better", "worse"), [("psnr", 20, 21, 19), ("ssim", 0.5, 0.6, 0.5), ("l1", 9, 8, 10)]
)
def test_which_value_is_better(tmp_path: Path, measure: str, before: float, better: float, worse: float) -> None:
    best = BestWeights(tmp_path, measure)
    assert best.is_improved_by(before) and not best.is_improved_by(math.nan)
    best.value = before
    assert best.is_improved_by(better)
    assert not any(best.is_improved_by(value) for value in (worse, before, math.nan, math.inf, -math.inf))


def test_the_best_weights_are_kept_beside_the_last_and_a_resumed_run_keeps_the_same(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="flowferry")
    trained(config, tmp_path / "whole")
    told = [line for line in caplog.messages if "best psnr" in line]
    folder = tmp_path / "whole" / "best"
    assert told == [
        f"step 4: best psnr so far, 20; weights in {folder}",
        f"step 8: best psnr so far, 22, after 20 at step 4; weights in {folder}",
    ]
    assert weights.step_of(folder) == 8 and weights.step_of(tmp_path / "whole" / "model") == 16
    trained(replace(config, train=replace(config.train, max_steps=8)), tmp_path / "short")
    assert_same_tensors(folder / weights.WEIGHTS, tmp_path / "short" / "model" / weights.WEIGHTS)

    trainer = Trainer(config, tmp_path / "stopped", data_root=Path("data"))
    advance = trainer.advance

    def interrupted() -> None:
        if trainer.progress.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        advance()

    trainer.advance = interrupted  # type: ignore[method-assign]
    assert trainer.run() == 128 + signal.SIGTERM
    trained(config, tmp_path / "stopped")
    assert_same_tensors(folder / weights.WEIGHTS, tmp_path / "stopped" / "best" / weights.WEIGHTS)
    assert weights.step_of(tmp_path / "stopped" / "best") == 8


def test_best_weights_of_another_measure_do_not_count(tmp_path: Path) -> None:
    first = BestWeights(tmp_path, "psnr")
    first.value, first.step = 22.0, 8
    again, other = BestWeights(tmp_path, "psnr"), BestWeights(tmp_path, "l1")
    for best in (again, other):
        best.load(first.state())
    assert (again.value, again.step) == (22, 8) and other.value is None
    nothing = BestWeights(tmp_path, None)
    nothing.load(first.state())
    assert nothing.state() == {} == BestWeights(tmp_path, "l1").state()


def test_the_best_weights_are_a_pipeline_whose_results_lie_beside_them(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "it"
    trained(replace(config, train=replace(config.train, max_steps=4)), run)
    best = run / "best"
    assert Pipeline.from_pretrained(best).config.train.best == "psnr"
    assert weights.results_folder(best, config) == best
    assert classifier_folder(best) == classifier_folder(run) == tmp_path / "runs" / "classifiers"


def test_what_is_not_measured_cannot_be_best(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for best, measured in (("psnr", "loss"), ("frechet", "loss")):
        with pytest.raises(UserError, match=f"--train.best: got {best}, expected one of {measured}, which are"):
            Trainer(config_of(tiny, 1, best=best), tmp_path, data_root=Path("data"))
    Trainer(config_of(tiny, 1, "denoise-mnist", best="ssim"), tmp_path, data_root=Path("data"))
