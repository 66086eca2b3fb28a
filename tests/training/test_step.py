"""One training step, and the average of the weights against a loop by hand: pipelines/training/step.py."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.schema import Config
from flowferry.datasets.builders import build_samplers
from flowferry.pipelines.optimizers import OPTIMIZERS
from flowferry.pipelines.training.batches import draw_pairs
from flowferry.pipelines.training.distributed import make_accelerator
from flowferry.pipelines.training.step import TrainStep, update_average

# --- the average of the weights -------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


@pytest.mark.parametrize("decay", [0.15, 0.9, 0.9999])
def test_the_average_follows_parameters_and_buffers_as_its_formula_says(decay: float) -> None:
    model = network()
    average = copy.deepcopy(model)
    by_hand = copy.deepcopy(model.state_dict())
    for n in range(20):
        if n:  # the first update finds the weights it began with
            with torch.no_grad():
                model(torch.randn(8, 3) + n)  # moves BatchNorm's statistics
                for p in model.parameters():
                    p.add_(torch.randn_like(p))
        update_average(average, model, decay, updates=n)
        d = min(decay, (1 + n) / (10 + n))
        for name, tensor in model.state_dict().items():
            mixed = d * by_hand[name] + (1 - d) * tensor
            by_hand[name] = mixed if tensor.is_floating_point() else tensor.clone()
        for name, tensor in average.state_dict().items():
            torch.testing.assert_close(
                tensor, by_hand[name], msg=lambda told, at=name, n=n: f"{at}, update {n}: {told}"
            )
    assert average[1].num_batches_tracked == 19


def test_the_first_update_copies() -> None:
    model, average = network(), network()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    update_average(average, model, 0.9, updates=0)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(average.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("refused", [True, False])
def test_the_average_stays_what_it_was_where_a_step_was_refused(refused: bool) -> None:
    model, average = network(), network()
    with torch.no_grad():
        model(torch.randn(8, 3))
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    before, expected = copy.deepcopy(average.state_dict()), copy.deepcopy(average)
    update_average(expected, model, 0.9, updates=5)
    update_average(average, model, 0.9, updates=5, unless=torch.tensor(refused))
    wanted = before if refused else expected.state_dict()
    assert not torch.equal(before["0.weight"], expected.state_dict()["0.weight"])
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in average.state_dict().items())


# --- the step -------------------------------------------------------------------------------------------


@pytest.fixture
def train_step(tiny: Callable[..., Config], tmp_path: Path) -> Callable[..., TrainStep]:
    """train_step(**train): a step of a tiny pipeline with options of its training, on the CPU."""

    def make(name: str = "noise2mnist-cfg-published", *, seed: int = 3, **train: Any) -> TrainStep:
        config = tiny(name, seed=seed)
        config = replace(config, train=replace(config.train, **{"batch_size": 8, "threads": 1, **train}))
        accelerator = make_accelerator(config.train)
        samplers = build_samplers(config, data_root=tmp_path, split="train", device=accelerator.device)
        return TrainStep(config, accelerator, *samplers)

    return make


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("name", ["noise2mnist-cfg-published", "moons"])
def test_a_step_is_one_of_the_optimizer_on_the_loss_of_its_batch(
    name: str, train_step: Callable[..., TrainStep]
) -> None:
    step = train_step(name, optimizer="adam", ema=None, clip_norm=None)
    model = copy.deepcopy(step.raw_model)
    loss, norm = step.take(4, lr=0.01)
    pairs = draw_pairs(step.config, step.source, step.target, 8, seed=3, step=4)
    expected = Pipeline(step.config, model).loss(*pairs)  # of the network as it was
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(norm, flat([p.grad for p in model.parameters()]).norm())
    torch.optim.Adam(model.parameters(), lr=0.01, fused=True).step()
    for ours, theirs in zip(step.raw_model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_network_begins_with_weights_and_draws_numbers_of_the_seed(train_step: Callable[..., TrainStep]) -> None:
    """What it draws, as dropout does, is another thing at each step, whatever was drawn before."""
    begun, drawn = [], []
    for seed in (3, 3, 4):
        torch.manual_seed(len(begun))
        step = train_step("moons", seed=seed)
        begun.append(flat([p.detach().clone() for p in step.raw_model.parameters()]))
        step.raw_model.register_forward_pre_hook(lambda *_: drawn.append(torch.rand(()).item()))
        for number in (0, 1):
            step.take(number, lr=0.01)
    assert torch.equal(begun[0], begun[1]) and (begun[1] != begun[2]).all()
    assert drawn[:2] == drawn[2:4] and len(set(drawn)) == 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_are_those_of_the_configuration(name: str, train_step: Callable[..., TrainStep]) -> None:
    step = train_step("fashion2mnist", optimizer=name)
    named = OPTIMIZERS[name](step.raw_model, 1.0)
    assert [type(own) for own in step.optimizers] == [type(one) for one in named]


def test_the_gradient_is_shortened_to_its_longest_norm(train_step: Callable[..., TrainStep]) -> None:
    step = train_step(clip_norm=0.01)
    seen: list[float] = []
    step.optimizers[0].register_step_pre_hook(
        lambda *_: seen.append(flat([p.grad for p in step.raw_model.parameters()]).norm().item())
    )
    _, norm = step.take(0, lr=0.01)
    assert norm > 0.02  # as it was
    assert seen == pytest.approx([0.01], rel=1e-3)


@pytest.mark.parametrize("ema", [0.9, None])
def test_what_is_shown_is_the_average_where_there_is_one(
    ema: float | None, train_step: Callable[..., TrainStep]
) -> None:
    step = train_step(ema=ema)
    for number in range(3):
        step.take(number, lr=0.01)
    assert step.eval_pipeline.model is (step.raw_model if ema is None else step.ema_model)
    same = [
        torch.equal(a, b)
        for a, b in zip(step.eval_pipeline.model.parameters(), step.raw_model.parameters(), strict=True)
    ]
    assert all(same) == (ema is None)


def test_the_average_takes_in_the_weights_of_each_step(train_step: Callable[..., TrainStep]) -> None:
    """The first as they are; then the share (1 + n)/(10 + n) of what it was, but no more than the decay asked for."""
    step, by_hand = train_step(ema=0.2), []
    for number, share in enumerate([0.0, 2 / 11, 0.2, 0.2]):  # 3/12 and 4/13 would be more
        step.take(number, lr=0.01)
        now = flat([p.detach() for p in step.raw_model.parameters()])
        by_hand.append(share * by_hand[-1] + (1 - share) * now if number else now)
        torch.testing.assert_close(flat([p.detach() for p in step.eval_pipeline.model.parameters()]), by_hand[-1])
    assert (by_hand[-1] - now).abs().max() > 1e-3


def test_the_weaker_network_stays_what_the_average_was(train_step: Callable[..., TrainStep]) -> None:
    step = train_step(ema=0.5)
    step.take(0, lr=0.01)
    then = flat([p.detach() for p in step.eval_pipeline.model.parameters()])
    step.keep_weaker()
    step.take(1, lr=0.01)
    weaker = step.eval_pipeline.weaker
    assert weaker is not None and not weaker.training
    kept = flat([p.detach() for p in weaker.parameters()])
    assert torch.equal(kept, then.half().float()) and kept.dtype == torch.float32
    assert not torch.equal(kept, flat([p.detach() for p in step.eval_pipeline.model.parameters()]).half().float())


def test_the_tensors_of_a_step_are_all_that_the_next_one_needs(train_step: Callable[..., TrainStep]) -> None:
    first, second = train_step(ema=0.9), train_step(ema=0.9)
    for number in range(3):
        first.take(number, lr=0.01)
    second.load(copy.deepcopy(first.tensors()), first.state(), what="the copy")
    results = [step.take(3, lr=0.01) for step in (first, second)]
    assert torch.equal(*results)
    ours, theirs = first.tensors(), second.tensors()
    assert {"model", "ema", "optimizer0"} == ours.keys() == theirs.keys()
    for group, tensors in ours.items():
        assert tensors.keys() == theirs[group].keys()
        assert all(torch.equal(tensor, theirs[group][name]) for name, tensor in tensors.items())


def test_a_checkpoint_goes_on_at_a_precision_that_scales_the_loss(train_step: Callable[..., TrainStep]) -> None:
    """One of fp32 or bf16 says nothing of the scale, which then begins as in a new run."""
    plain, scaled = train_step(), train_step()
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    assert scaled.scales_loss and not plain.scales_loss
    scaled.load(plain.tensors(), plain.state(), what="the copy")
    assert scaled.accelerator.scaler.get_scale() == 64
    saved = scaled.state()
    saved["scaler"]["scale"] = 8.0
    scaled.load(plain.tensors(), saved, what="the copy")
    assert scaled.accelerator.scaler.get_scale() == 8
    plain.load(scaled.tensors(), saved, what="the copy")
