"""Steps whose loss or gradient is NaN or infinite: they end the run or are left out, and touch nothing."""

import json
import math
from pathlib import Path

import pytest
import torch

from flowferry.configs.recipe import TrainConfig
from flowferry.pipelines.storage import checkpoint
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training.nonfinite import NonFinite, check_finite
from flowferry.pipelines.training.pending import PendingSteps
from tiny_runs import config_of, metrics

# --- what is said of a step ----------------------------------------------------------------------------


def values(loss: float, norm: float) -> dict[str, float]:
    return {"train/loss": loss, "train/grad_norm": norm, "train/lr": 0.25}


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
@pytest.mark.parametrize(
    ("found", "scales_loss"),
    [(values(1.0, 2.0), False), (values(1.0, 2.0), True), (values(1.0, math.inf), True), (values(1.0, math.nan), True)],
    ids=["finite", "finite, scaled", "infinite gradient, scaled", "gradient that is NaN, scaled"],
)
def test_a_finite_loss_is_logged_as_it_is(on_nonfinite, found, scales_loss):
    """An infinite gradient is how the scaler of fp16 finds its scale; without a scaler it counts as a failure."""
    train = TrainConfig(on_nonfinite=on_nonfinite)
    assert check_finite(7, found, train, scales_loss=scales_loss, skipped=3) is found


REFUSED = [
    (values(math.nan, 2.0), False),
    (values(-math.inf, 2.0), False),
    (values(1.0, math.inf), False),
    (values(1.0, math.nan), False),
    (values(math.inf, 2.0), True),
    (values(math.nan, math.nan), True),
]


@pytest.mark.parametrize(("found", "scales_loss"), REFUSED)
def test_what_is_not_finite_ends_the_run_with_advice(found, scales_loss):
    loss, norm = found["train/loss"], found["train/grad_norm"]
    with pytest.raises(NonFinite) as told:
        check_finite(7, found, TrainConfig(lr=0.25), scales_loss=scales_loss, skipped=0)
    assert str(told.value) == (
        f"step 7: loss {loss}, gradient norm {norm}; the weights were not touched. Try --train.on-nonfinite skip; or, "
        "in another --output-dir, a lower --train.lr (got 0.25) or --train.clip-norm 1"
    )


@pytest.mark.parametrize(("found", "scales_loss"), REFUSED)
def test_of_a_step_that_is_left_out_what_is_finite_is_logged_and_their_number(found, scales_loss):
    train, before = TrainConfig(on_nonfinite="skip"), dict(found)
    logged = check_finite(7, found, train, scales_loss=scales_loss, skipped=3)
    kept = {tag: value for tag, value in before.items() if abs(value) < math.inf}
    assert logged == {**kept, "train/skipped": 4} and "train/lr" in logged
    assert found.keys() == before.keys()


# --- what becomes of the weights -----------------------------------------------------------------------


def tensors_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Copies of the weights and of the optimizers' state."""
    states = [(f"optimizer{i}", checkpoint.optimizer_tensors(o)) for i, o in enumerate(trainer.train_step.optimizers)]
    found = [("model", trainer.train_step.raw_model.state_dict()), *states]
    return {f"{part}.{name}": tensor.clone() for part, tensors in found for name, tensor in tensors.items()}


@pytest.mark.parametrize("poison", ["x0", "x1", "t"])
@pytest.mark.parametrize("name", ["fashion2mnist", "fashion2mnist-published"])  # Muon with AdamW, Adam
def test_a_non_finite_step_stops_before_the_weights_are_touched(tiny, tmp_path, name, poison, caplog):
    trainer = Trainer(config_of(tiny, 5, name), tmp_path, data_root=Path("data"))
    draw = trainer.train_step.global_batch

    def poisoned(step):
        pairs = draw(step)
        if step == 2:
            getattr(pairs, poison)[0] = math.nan
            poisoned.before = tensors_of(trainer)
        return pairs

    trainer.train_step.global_batch = poisoned
    with caplog.at_level("INFO", logger="flowferry"):
        assert trainer.run() == 1
    assert "step 3" in caplog.text and "not touched" in caplog.text and "--train.lr" in caplog.text
    after = tensors_of(trainer)
    assert len(after) > 2 * len(trainer.train_step.raw_model.state_dict())
    assert all(torch.equal(tensor, poisoned.before[name]) for name, tensor in after.items())
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize("name", ["fashion2mnist", "noise2mnist-cfg-published"])  # Muon; batch statistics
def test_nothing_is_touched_before_the_host_reads_that_a_step_was_not_finite(tiny, tmp_path, name, monkeypatch):
    """As on a GPU, where the steps after it have been taken by then."""
    monkeypatch.setattr(PendingSteps, "is_readable", property(lambda self: len(self._steps) >= 4))
    trainer = Trainer(config_of(tiny, 8, name), tmp_path, data_root=Path("data"))
    draw, kept = trainer.train_step.global_batch, {}

    def poisoned(step):
        pairs = draw(step)
        if step == 1:
            pairs.x1[0] = math.nan
            kept.update(tensors_of(trainer))
        return pairs

    trainer.train_step.global_batch = poisoned
    assert trainer.run() == 1
    assert trainer.progress.step == 4
    assert all(torch.equal(tensor, kept[name]) for name, tensor in tensors_of(trainer).items())


@pytest.mark.parametrize("name", ["fashion2mnist", "noise2mnist-cfg-published"])  # Muon; batch statistics
def test_a_non_finite_step_can_be_left_out(tiny, tmp_path, name, caplog):
    trainer = Trainer(config_of(tiny, 5, name, on_nonfinite="skip"), tmp_path, data_root=Path("data"))
    draw, kept = trainer.train_step.global_batch, {}

    def poisoned(step):
        pairs = draw(step)
        if step in (0, 2):
            pairs.x1[0] = math.nan
        if step in (2, 3):
            average = trainer.train_step.ema_model.state_dict()
            average = {f"average.{name}": tensor.clone() for name, tensor in average.items()}
            kept[step] = tensors_of(trainer) | average
        return pairs

    trainer.train_step.global_batch = poisoned
    with caplog.at_level("INFO", logger="flowferry"):
        assert trainer.run() == 0
    assert "step 1 skipped (1 so far): loss nan" in caplog.text and "step 3 skipped (2 so far): loss nan" in caplog.text
    assert all(torch.equal(tensor, kept[2][name]) for name, tensor in kept[3].items())
    rows = metrics(tmp_path)
    assert [row["step"] for row in rows if "train/loss" not in row] == [1, 3]
    assert [row["train/skipped"] for row in rows if "train/skipped" in row] == [1, 2]
    assert math.isfinite(rows[-1]["eval/loss"])
    assert all(tensor.isfinite().all() for tensor in tensors_of(trainer).values())
    assert json.loads((tmp_path / "checkpoints/step-0000005/state.json").read_text())["skipped"] == 2


def test_a_run_that_met_a_non_finite_step_goes_on_without_it(tiny, tmp_path):
    """With the option that the message names."""

    def go(**changes) -> int:
        trainer = Trainer(config_of(tiny, 4, checkpoint_steps=1, **changes), tmp_path, data_root=Path("data"))
        draw = trainer.train_step.global_batch

        def poisoned(step):
            pairs = draw(step)
            if step == 2:
                pairs.x1[0] = math.nan
            return pairs

        trainer.train_step.global_batch = poisoned
        return trainer.run()

    assert (go(), go(), go(on_nonfinite="skip")) == (1, 1, 0)
    assert metrics(tmp_path)[-1]["step"] == 4
