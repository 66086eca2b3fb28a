"""Muon for kernels, AdamW for the rest: pipelines/optimizers.py."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import TrainConfig
from flowferry.configs.validation import UserError
from flowferry.models import build_model
from flowferry.pipelines.optimizers import OPTIMIZERS, KernelMuon


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradients", [torch.contiguous_format, torch.channels_last])
def test_kernels_move_as_torchs_muon_moves_their_matrices(layout, gradients):
    kernel = nn.Parameter(numbers(6, 4, 3, 3).contiguous(memory_format=layout))
    oracle = nn.Parameter(numbers(6, 4, 3, 3).flatten(1))
    ours = KernelMuon([kernel], lr=0.1)
    theirs = torch.optim.Muon([oracle], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        gradient = numbers(6, 4, 3, 3, seed=step + 1)
        kernel.grad = gradient.clone(memory_format=gradients)
        oracle.grad = gradient.flatten(1)
        ours.step()
        theirs.step()
        ours.zero_grad()
    assert kernel.grad is None
    assert torch.equal(kernel.detach().flatten(1), oracle.detach())
    # What is saved of one layout goes on in the other.
    (mine,), (plain,) = (list(optimizer.state.values()) for optimizer in (ours, theirs))
    assert torch.equal(mine["momentum_buffer"], plain["momentum_buffer"])


def test_kernels_whose_memory_is_another_one_since_move_too():
    """As when several processes train: preparing the model for them moves its parameters."""
    moved, stayed = (nn.Parameter(numbers(6, 4, 3, 3)) for _ in range(2))
    optimizers = [KernelMuon([kernel], lr=0.1) for kernel in (moved, stayed)]
    moved.data = moved.data.clone()
    for kernel, optimizer in zip((moved, stayed), optimizers, strict=True):
        kernel.grad = numbers(6, 4, 3, 3, seed=1)
        optimizer.step()
    assert torch.equal(moved, stayed) and not torch.equal(moved, numbers(6, 4, 3, 3))


@pytest.mark.parametrize("pipeline", ["fashion2mnist", "noise2mnist-cfg", "noise2fashion", "moons"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_has_one_optimizer(name, pipeline):
    torch.manual_seed(0)
    model = build_model(PIPELINES[pipeline])
    optimizers = OPTIMIZERS[name](model, 1e-3)
    theirs = [
        p
        for optimizer in optimizers
        for p in (optimizer.kernels if isinstance(optimizer, KernelMuon) else optimizer.param_groups[0]["params"])
    ]
    assert sorted(map(id, theirs)) == sorted(map(id, model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    for optimizer in optimizers:
        optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    for optimizer in optimizers:
        optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("classes", [0, 10, 40])  # an embedding of 41 rows is as large as a hidden layer
def test_muon_has_the_kernels_inside_and_adamw_the_first_the_last_and_the_embedding(classes):
    model = build_model(replace(PIPELINES["noise2mnist"], num_classes=classes))
    muon, adamw = OPTIMIZERS["muon"](model, 1e-3)
    names = {id(p): name for name, p in model.named_parameters() if p.ndim > 1}
    assert {names[id(p)] for p in adamw.param_groups[0]["params"] if p.ndim > 1} == {
        "stem.weight",
        "out.weight",
        *(["label.weight"] if classes else []),
    }
    assert {"time.0.weight", "down.0.modulation.weight", "grow.weight"} <= {names[id(p)] for p in muon.kernels}


def test_a_network_without_hidden_layers_is_trained_by_adamw_alone():
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    before = model.weight.detach().clone()
    (optimizer,) = OPTIMIZERS["muon"](model, 1e-2)
    model(numbers(5, 3)).square().mean().backward()
    optimizer.step()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize("name, second", [("adam", 0.999), ("muon", 0.99)])
def test_what_is_not_muons_moves_as_adam_says(name, second):
    """Kingma & Ba 2015, algorithm 1, with β₁ = 0.9; beside Muon the squares are remembered for a shorter time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 4))
    rest = [p for name, p in model.named_parameters() if name != "1.weight"]  # all but the hidden matrix
    expected = [p.detach().double() for p in rest]
    means, squares = ([torch.zeros_like(p) for p in expected] for _ in range(2))
    optimizers = OPTIMIZERS[name](model, 1e-2)
    for step in range(1, 5):
        for i, p in enumerate(rest):
            p.grad = numbers(*p.shape, seed=10 * step + i)
            means[i] = 0.9 * means[i] + 0.1 * p.grad
            squares[i] = second * squares[i] + (1 - second) * p.grad**2
            mean, square = means[i] / (1 - 0.9**step), squares[i] / (1 - second**step)
            expected[i] -= 1e-2 * mean / (square.sqrt() + 1e-8)
        for optimizer in optimizers:
            optimizer.step()
    for p, wanted in zip(rest, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), wanted, rtol=0, atol=1e-6)


def test_one_rate_serves_both():
    """An update by Muon is as large as one by Adam, whose elements are about the learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 8))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    for optimizer in OPTIMIZERS["muon"](model, 1e-2):
        optimizer.step()
    moved = {name: (p - before[name]).square().mean().sqrt().item() for name, p in model.named_parameters()}
    assert all(0.1e-2 < size < 1.1e-2 for size in moved.values()), moved


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("good", [0, 2])  # steps before the one that is refused
def test_a_refused_step_changes_neither_weights_nor_state(name, good):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 8))
    optimizers = OPTIMIZERS[name](model, 1e-2)

    def step(value: float) -> None:
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        for optimizer in optimizers:
            optimizer.found_inf = torch.tensor(float(not math.isfinite(value)))
            optimizer.step()
            optimizer.zero_grad()

    def tensors() -> list[Tensor]:
        states = [value for o in optimizers for of in o.state.values() for value in of.values()]
        return [tensor.detach().clone() for tensor in [*model.parameters(), *states]]

    for _ in range(good):
        step(0.5)
    before = tensors()
    step(math.nan)
    after = tensors()
    new = after[len(before) :] if good == 0 else []
    assert all(torch.equal(old, kept) for old, kept in zip(before, after, strict=False))
    assert all(not tensor.any() for tensor in new)
    assert len(after) > 4
    step(0.5)
    assert not torch.equal(after[0], tensors()[0])


def test_half_precision_with_muon_is_refused():
    with pytest.raises(UserError, match=r"^precision: got fp16 with the optimizer muon, expected auto, fp32 or bf16$"):
        TrainConfig(optimizer="muon", precision="fp16")
