"""An adversary beside the loss: pipelines/training/adversary.py, and what the training step does with it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers
from flowferry.models.critic import Critic
from flowferry.pipelines.flow.losses import adversarial_loss, critic_loss
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.training.adversary import Comparison
from flowferry.pipelines.training.batches import draw_pairs
from flowferry.pipelines.training.step import TrainStep
from sample_data import CPU
from tiny_runs import assert_same_tensors, config_of, trained

pytestmark = pytest.mark.usefixtures("another_precision")


def step_of(config) -> TrainStep:
    samplers = build_samplers(config, data_root=Path(), split="train", device=CPU)
    return TrainStep(config, Accelerator(cpu=True, mixed_precision="no"), *samplers)


def adversarial(tiny, weight: float = 0.5, **train):
    return config_of(tiny, 4, "fashion2mnist", adversary=weight, precision="fp32", **train)


# --- the formulas ------------------------------------------------------------------------------------


def test_the_hinge_is_zero_beyond_the_margin_and_linear_within_it():
    def scores(*values: float) -> Tensor:
        return torch.tensor(values)

    assert critic_loss(scores(1.0, 3.0), scores(-1.0, -2.0)) == 0
    assert critic_loss(scores(0.0, 0.0), scores(0.0, 0.0)) == 2
    assert critic_loss(scores(0.5, 1.5), scores(-1.0, 0.5)) == pytest.approx(0.25 + 0.75)
    assert adversarial_loss(scores(1.0, -3.0)) == 1


def test_a_critic_scores_patches_of_any_size_and_changes_slowly():
    torch.manual_seed(0)
    critic = Critic(channels=3)
    for _ in range(30):  # each forward refines the estimate of the spectral norms
        x = torch.randn(8, 3, 40, 24)
        assert critic(x).shape == (8, 1, 5, 3)
    y = x + 0.1 * torch.randn_like(x)
    assert (critic(x) - critic(y)).norm() < 1.1 * 4**4 * (
        x - y
    ).norm()  # 4×4 kernels at stride 2, as matrices of norm 1
    assert Critic(channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("name", ["fashion2mnist", "ddpm-mnist", "denoise-mnist"])
def test_a_result_is_the_end_of_the_path_that_the_prediction_implies(tiny, name):
    torch.manual_seed(1)
    x0, x1, t = torch.randn(6, 1, 28, 28), torch.rand(6, 1, 28, 28) * 2 - 1, torch.linspace(0.1, 0.9, 6)
    pipeline, seen = Pipeline(tiny(name)), []
    truth = pipeline.prediction.truth(pipeline.path, x0, x1, t)
    pipeline.model.forward = lambda x, t, condition: truth
    loss = pipeline.loss(x0, x1, t, judge=lambda results: seen.append(results) or results.sum() * 0 + 7)
    assert loss.item() == pytest.approx(7, abs=1e-4), "a perfect answer loses only what the judge says"
    assert torch.allclose(*seen, x1, atol=1e-3)


# --- the step ----------------------------------------------------------------------------------------


def test_the_network_descends_the_weighted_sum_and_the_critic_its_own_loss(tiny):
    config = adversarial(tiny)
    step = step_of(config)
    pairs = draw_pairs(config, step.source, step.target, 16, seed=config.seed, step=0)
    critic, real = step.adversary.critic, step.adversary.draw(0)
    results: list[Tensor] = []
    network, others = list(step.raw_model.parameters()), list(critic.parameters())

    def judge(seen: Tensor) -> Tensor:
        results.append(seen)
        return 0.5 * adversarial_loss(critic(seen))

    expected = torch.autograd.grad(step.pipeline.loss(*pairs, judge), network, allow_unused=True)
    plain = torch.autograd.grad(step.pipeline.loss(*pairs), network, allow_unused=True)
    own = torch.autograd.grad(critic_loss(critic(real), critic(results[0].detach())), others)
    step._backward(pairs, real)

    def close(parameters, gradients, tolerance=0.02) -> bool:
        pairs = [(p.grad, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        return all((a - b).norm() <= tolerance * b.norm() + 1e-6 for a, b in pairs)

    assert close(network, expected) and not close(network, plain)
    assert close(others, own, 0.2), "spectral norms are estimates, refined at each forward"


@pytest.mark.parametrize(
    ("name", "size", "accumulate"),
    [("fashion2mnist", 16, 4), ("fashion2mnist-map", 32, 4), ("fashion2mnist-map", 24, 2)],
)
def test_parts_of_a_batch_give_the_gradients_of_the_whole(tiny, name, size, accumulate):
    """Also where one part has more results to judge than another, as of 24 samples of a map in two parts."""
    options = {"adversary": 0.5, "precision": "fp32", "batch_size": size}
    whole, parts = (step_of(config_of(tiny, 4, name, accumulate=parts, **options)) for parts in (1, accumulate))
    for step in (whole, parts):
        for _ in range(40):
            step.adversary.critic(step.adversary.draw(0))  # so that the spectral norms are no estimates any more
        step._backward(step.global_batch(0), step.adversary.draw(0))
    for name in ("raw_model", "adversary"):
        models = [getattr(getattr(step, name), "critic", getattr(step, name)) for step in (whole, parts)]
        for a, b in zip(*(model.parameters() for model in models), strict=True):
            assert (a.grad is None) == (b.grad is None)
            assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-4, rtol=1e-2)


def test_a_critic_learns_to_tell_results_from_real_images(tiny):
    step = step_of(adversarial(tiny, weight=1e-9, lr=3e-3))
    real, results = step.adversary.draw(0), -step.adversary.draw(1)
    losses = []
    for _ in range(30):
        losses.append(critic_loss(step.adversary.critic(real), step.adversary.critic(results)).item())
        step.adversary.teach(real, results, share=1.0)
        step.adversary.prepared_optimizer.step()
        step.adversary.prepared_optimizer.zero_grad()
    assert losses[-1] < 0.7 * losses[0]


def test_of_a_map_the_steps_to_the_target_are_judged_and_each_weighs_as_a_sample_does(tiny):
    config = config_of(tiny, 4, "fashion2mnist-map", adversary=0.5, precision="fp32", batch_size=16)
    adversary, pipeline, seen = step_of(config).adversary, Pipeline(config), []
    adversary.loss = lambda results: seen.append(results) or results.sum() * 0 + 8
    pipeline.model.forward = lambda x, t, condition: torch.ones_like(x)
    x0, x1 = torch.randn(16, 1, 28, 28), torch.randn(16, 1, 28, 28)
    t = OBJECTIVES["map"].draw_times(torch.rand(16, 3), 2.0, 0.0, pipeline.path)
    compared = Comparison(adversary, adversary.draw(0), 0)
    judged, plain = (pipeline.loss(x0, x1, t, judge=judge) for judge in (compared.judge, None))
    assert (judged - plain).item() == pytest.approx(8 * 2 / 16, abs=1e-5)
    start = t[[7, 15], 0].reshape(2, 1, 1, 1)
    torch.testing.assert_close(*seen, torch.lerp(x0[[7, 15]], x1[[7, 15]], start) + (1 - start))


@pytest.mark.parametrize(("name", "every"), [("fashion2mnist", 1), ("fashion2mnist-map", 8)])
@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_each_result_is_compared_with_its_own_real_sample_in_however_many_parts(
    tiny, name, every, processes, accumulate
):
    """Four parts of 48 samples have 12 each, and one or two steps of a map to judge."""
    config = config_of(tiny, 4, name, adversary=1.0, precision="fp32", batch_size=48, accumulate=accumulate)
    adversary, learned = step_of(config).adversary, []
    adversary.accelerator = SimpleNamespace(num_processes=processes)
    adversary.loss = torch.mean
    adversary.teach = lambda *told, share: learned.append((*told, share))
    real, seen, loss = adversary.draw(0), torch.arange(48.0), 0.0
    assert len(real) == 48 // every
    for index, part in enumerate(seen.chunk(processes * accumulate)):
        compared = Comparison(adversary, real, index)
        loss += compared.judge(part).item() / (processes * accumulate)
        compared.teach()
    judged = seen[every - 1 :: every]
    assert torch.equal(torch.cat([one for one, _, _ in learned]), real)
    assert torch.equal(torch.cat([results for _, results, _ in learned]), judged)
    assert [share for *_, share in learned] == [len(one) * processes / len(real) for one, _, _ in learned]
    assert loss == pytest.approx(judged.sum().item() / 48)


def test_a_step_of_a_map_is_learned_from_the_average(tiny):
    step = step_of(config_of(tiny, 4, "fashion2mnist-map", adversary=0.05, precision="fp32", batch_size=16))
    asked: list[Tensor] = []
    forward = step.ema_model.forward
    step.ema_model.forward = lambda x, t, condition: asked.append(t) or forward(x, t, condition)
    step.take(0, lr=1e-3)
    assert [t.shape for t in asked] == [(4, 2)] * 4, "every fourth sample of 16, four times"
    assert all(torch.equal(t[:, 0], t[:, 1]) for t in asked)


def test_each_part_of_a_batch_must_show_a_result(tiny):
    small = config_of(tiny, 4, "fashion2mnist-map", adversary=0.05, batch_size=16, accumulate=4)
    message = "--train.batch-size: got 16, of which 4 go through the network at a time, expected 8 at a time"
    with pytest.raises(UserError, match=f"^{message} for the adversary of a map$"):
        step_of(small)
    step_of(replace(small, train=replace(small.train, accumulate=2))).take(0, lr=1e-3)


# --- fp16 --------------------------------------------------------------------------------------------


@pytest.fixture
def in_half(tiny):
    """Return a step that scales its loss by 1024; Accelerate itself does so on GPUs alone."""
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
    config = config_of(tiny, 4, "fashion2mnist", adversary=0.5, precision="fp16", optimizer="adam", clip_norm=None)
    return TrainStep(config, accelerator, *build_samplers(config, data_root=Path(), split="train", device=CPU))


def test_under_fp16_network_and_critic_step_along_their_gradients(in_half):
    gradients: list[list[Tensor]] = []
    for optimizer in in_half.optimizers:
        optimizer.register_step_pre_hook(
            lambda self, *_: gradients.append([p.grad.clone() for p in self.param_groups[0]["params"]])
        )
    in_half.take(0, lr=1e-3)
    for optimizer, found in zip(in_half.optimizers, gradients, strict=True):
        (group,) = optimizer.param_groups
        for parameter, gradient in zip(group["params"], found, strict=True):
            mean = optimizer.state[parameter]["exp_avg"] / (1 - group["betas"][0])
            torch.testing.assert_close(mean, gradient)
    assert max(gradient.abs().max() for gradient in gradients[1]) > 1e-3
    assert in_half.accelerator.scaler.state_dict()["_growth_tracker"] == 1, "a step counts once"


def test_under_fp16_a_step_that_is_not_finite_is_left_out_and_halves_the_scale_once(in_half):
    in_half.take(0, lr=1e-3)
    pairs = in_half.global_batch(1)
    pairs.x1[0] = torch.inf
    in_half.global_batch = lambda number: pairs
    before = [p.detach().clone() for model in (in_half.raw_model, in_half.adversary.critic) for p in model.parameters()]
    in_half.take(1, lr=1e-3)
    after = [p for model in (in_half.raw_model, in_half.adversary.critic) for p in model.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert in_half.accelerator.scaler.get_scale() == 512


# --- a run -------------------------------------------------------------------------------------------


def test_a_run_with_an_adversary_resumes_bit_for_bit_and_does_not_keep_it_with_the_weights(tiny, tmp_path):
    def config(steps: int):
        changed = config_of(
            tiny, steps, "fashion2mnist", adversary=0.1, precision="fp32", schedule="constant", warmup_steps=0
        )
        return replace(changed, train=replace(changed.train, epochs=4))

    trained(config(4), tmp_path / "whole")
    for steps in (2, 4):
        trained(config(steps), tmp_path / "parts")
    last = "checkpoints/step-0000004"
    for file in ("model.safetensors", "ema.safetensors", "critic.safetensors", "optimizer2.safetensors"):
        assert_same_tensors(*(tmp_path / name / last / file for name in ("whole", "parts")))
    assert sorted(path.name for path in (tmp_path / "whole" / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    Pipeline.from_pretrained(tmp_path / "whole")


def test_points_and_tiny_images_have_no_adversary(tiny):
    config = tiny("moons")
    with pytest.raises(
        UserError, match=r"^train adversary: got 0\.1 for samples of shape \(2,\), expected images of 8"
    ):
        replace(config, train=replace(config.train, adversary=0.1))
