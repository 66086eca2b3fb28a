"""The networks are those of their published tables: models/."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowferry.configs.networks import (
    AttentionUNetConfig,
    CourseUNetConfig,
    MLPConfig,
    PatchUNetConfig,
    PracticalUNetConfig,
)
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers
from flowferry.models import MODELS, build_model, to_device
from flowferry.models.attention_unet import AttentionUNet, SelfAttention, sinusoids
from flowferry.models.base import Network
from flowferry.models.course_unet import CourseUNet
from flowferry.models.mlp import MLP
from flowferry.models.patch_unet import ModulatedBlock, PatchUNet
from flowferry.models.practical_unet import PracticalUNet
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.training.batches import draw_pairs

COURSE = {  # name: how time enters, classes
    "none": ("none", 0),
    "multiply": ("multiply", 0),
    "add": ("add", 0),
    "class and time": ("add", 10),
}
each_course_unet = pytest.mark.parametrize("time, classes", COURSE.values(), ids=COURSE.keys())


def course_unet(width: int, time: str, classes: int, channels: int = 1) -> CourseUNet:
    torch.manual_seed(0)
    return CourseUNet(CourseUNetConfig(width=width, time=time), shape=(channels, 28, 28), num_classes=classes)


def practical_unet(width: int, channels: int = 1) -> PracticalUNet:
    torch.manual_seed(0)
    return PracticalUNet(PracticalUNetConfig(width=width), shape=(channels, 28, 28), num_classes=0)


def attention_unet(channels: int = 1, side: int = 28, **config) -> AttentionUNet:
    torch.manual_seed(0)
    return AttentionUNet(AttentionUNetConfig(**config), shape=(channels, side, side), num_classes=0)


def small_attention_unet(**config) -> AttentionUNet:
    return attention_unet(**{"widths": (16, 32, 48), "middle": 24, **config})


def mlp(width: int, dimension: int = 2) -> MLP:
    torch.manual_seed(0)
    return MLP(MLPConfig(width=width), shape=(dimension,), num_classes=0)


def inputs(count: int = 3, channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return xt, t and labels, with the null label of ten classes among them."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, channels, 28, 28, generator=g),
        torch.linspace(0.1, 0.9, count),
        torch.tensor([7, 10, 0])[:count],
    )


def told(label: Tensor | None) -> Condition:
    return Condition(label, num_classes=10)


# --- parameters, added up from the tables ---------------------------------------------------------------


def conv(inward: int, outward: int, kernel: int) -> int:
    return inward * outward * kernel**2 + outward


def conv_bn(inward: int, outward: int, kernel: int) -> int:
    return conv(inward, outward, kernel) + 2 * outward


def two(part: Callable[[int, int, int], int], inward: int, outward: int) -> int:
    """ConvBlock or DoubleConv: two convolutions with 3×3 kernels."""
    return part(inward, outward, 3) + part(outward, outward, 3)


def fc(inward: int, outward: int) -> int:
    return (inward * outward + outward) + (outward * outward + outward)


def course_parameters(d: int) -> int:
    init = two(conv_bn, 1, d)
    down = conv_bn(d, d, 3) + two(conv_bn, d, d) + conv_bn(d, 2 * d, 3) + two(conv_bn, 2 * d, 2 * d)
    unflatten = conv_bn(2 * d, 2 * d, 7)
    up = conv_bn(4 * d, d, 4) + two(conv_bn, d, d) + conv_bn(2 * d, d, 4) + two(conv_bn, d, d)
    return init + down + unflatten + up + two(conv_bn, 2 * d, d) + conv(d, 1, 3)


def norm_conv(inward: int, outward: int) -> int:
    return 2 * inward + conv(inward, outward, 3)


def residual(inward: int, outward: int) -> int:
    time = 128 * outward + outward
    return norm_conv(inward, outward) + time + norm_conv(outward, outward) + conv(inward, outward, 1)


def attention(width: int) -> int:
    queries_keys_values, result = 3 * (width * width + width), width * width + width
    return 2 * width + queries_keys_values + result


def attention_parameters(channels: int) -> int:
    time = 2 * (128 * 128 + 128)
    down = residual(32, 64) + conv(64, 64, 4) + residual(64, 128) + attention(128) + conv(128, 128, 4)
    middle = residual(128, 64) + attention(64) + residual(64, 64)
    up = conv(64, 64, 4) + residual(64 + 64, 32) + attention(32) + conv(32, 32, 4) + residual(32 + 32, 16)
    return time + conv(channels, 32, 3) + down + middle + up + norm_conv(16, channels)


def linear(inward: int, outward: int) -> int:
    return inward * outward + outward


@pytest.mark.parametrize(
    "model, expected",
    [
        (course_unet(128, "none", 0), course_parameters(128)),
        (course_unet(64, "multiply", 0), course_parameters(64) + fc(1, 128) + fc(1, 64)),
        (course_unet(64, "add", 0), course_parameters(64) + fc(1, 128) + fc(1, 64)),
        (course_unet(64, "add", 10), course_parameters(64) + fc(1, 128) + fc(1, 64) + fc(10, 128) + fc(10, 64)),
        (
            practical_unet(32),
            two(conv, 2, 32) + two(conv, 32, 64) + two(conv, 64, 64)
            + conv(64, 64, 2) + two(conv, 64, 32) + conv(32, 32, 2) + two(conv, 32, 32) + conv(32, 1, 1),
        ),
        (attention_unet(), attention_parameters(1)),
        (attention_unet(channels=3), attention_parameters(3)),
        (mlp(128), linear(3, 128) + 2 * linear(128, 128) + linear(128, 2)),
    ],
    ids=[
        "course D=128 none", "course D=64 multiply", "course D=64 add", "course D=64 class", "practical",
        "attention", "attention in color", "mlp",
    ],
)  # fmt: skip
def test_the_parameters_are_as_many_as_the_table_says(model: nn.Module, expected: int) -> None:
    assert sum(p.numel() for p in model.parameters()) == expected


# --- the tables, written out once more as functions ------------------------------------------------------


def course_by_the_table(model: CourseUNet, x: Tensor, t: Tensor, one_hot: Tensor) -> Tensor:
    """The wiring as the table gives it, on the model's own weights in the order of the table."""
    p = iter(model.parameters())

    def bn_gelu(h: Tensor) -> Tensor:
        return F.gelu(F.batch_norm(h, None, None, next(p), next(p), training=True))

    def conv(h: Tensor) -> Tensor:
        return bn_gelu(F.conv2d(h, next(p), next(p), stride=1, padding=1))

    def down(h: Tensor) -> Tensor:
        return conv(conv(bn_gelu(F.conv2d(h, next(p), next(p), stride=2, padding=1))))

    def up(h: Tensor) -> Tensor:
        return conv(conv(bn_gelu(F.conv_transpose2d(h, next(p), next(p), stride=2, padding=1))))

    def fc(block: nn.Sequential, signal: Tensor) -> Tensor:
        w1, b1, w2, b2 = block.parameters()
        return F.linear(F.gelu(F.linear(signal, w1, b1)), w2, b2)[:, :, None, None]

    def condition(h: Tensor, number: int) -> Tensor:
        time = fc(getattr(model, f"time{number}"), t[:, None]) if model.time != "none" else torch.zeros(())
        if model.num_classes:
            return fc(getattr(model, f"class{number}"), one_hot) * h + time
        return h * time if model.time == "multiply" else h + time

    h0 = conv(conv(x))
    h1 = down(h0)
    h2 = down(h1)
    h = bn_gelu(F.conv_transpose2d(F.gelu(F.avg_pool2d(h2, 7)), next(p), next(p), stride=7))
    h = up(torch.cat([condition(h, 1), h2], dim=1))
    h = up(torch.cat([condition(h, 2), h1], dim=1))
    return F.conv2d(conv(conv(torch.cat([h, h0], dim=1))), next(p), next(p), padding=1)


def practical_by_the_table(model: PracticalUNet, x: Tensor, t: Tensor) -> Tensor:
    p = iter(model.parameters())

    def double(h: Tensor) -> Tensor:
        for _ in range(2):
            h = F.relu(F.conv2d(h, next(p), next(p), padding=1))
        return h

    def up(h: Tensor) -> Tensor:
        return F.conv_transpose2d(h, next(p), next(p), stride=2)

    h1 = double(torch.cat([x, t[:, None, None, None] * torch.ones_like(x[:, :1])], dim=1))
    h2 = double(F.max_pool2d(h1, 2))
    h = double(F.max_pool2d(h2, 2))
    h = double(up(h) + h2)
    h = double(up(h) + h1)
    return F.conv2d(h, next(p), next(p))


class Layers:
    """The layers of a table, on a model's own weights by their names."""

    def __init__(self, model: nn.Module) -> None:
        self.p = dict(model.named_parameters())

    def norm(self, h: Tensor, name: str) -> Tensor:
        grouped = h.unflatten(1, (8, -1)).flatten(2)
        scaled = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
        scaled = scaled.reshape(h.shape)
        return scaled * self.p[f"{name}.weight"][:, None, None] + self.p[f"{name}.bias"][:, None, None]

    def conv(self, h: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(h, self.p[f"{name}.weight"], self.p[f"{name}.bias"], **how)

    def fc(self, h: Tensor, name: str) -> Tensor:
        return h @ self.p[f"{name}.weight"].T + self.p[f"{name}.bias"]


def silu(h: Tensor) -> Tensor:
    return h * h.sigmoid()


def attention_by_the_table(model: AttentionUNet, x: Tensor, t: Tensor, attends: tuple[bool, ...]) -> Tensor:
    layers = Layers(model)
    p, norm, conv, fc = layers.p, layers.norm, layers.conv, layers.fc

    def residual(h: Tensor, name: str) -> Tensor:
        inner = conv(silu(norm(h, f"{name}.first.0")), f"{name}.first.2", padding=1)
        inner = inner + fc(silu(time), f"{name}.time.1")[:, :, None, None]
        return conv(silu(norm(inner, f"{name}.second.0")), f"{name}.second.2", padding=1) + conv(h, f"{name}.skip")

    def attend(h: Tensor, name: str) -> Tensor:
        b, c, rows, columns = h.shape
        positions = norm(h, f"{name}.norm").flatten(2).transpose(1, 2)
        projected = positions @ p[f"{name}.attention.in_proj_weight"].T + p[f"{name}.attention.in_proj_bias"]
        q, k, v = (part.unflatten(2, (4, c // 4)).transpose(1, 2) for part in projected.chunk(3, dim=2))
        weights = (q @ k.transpose(2, 3) / (c // 4) ** 0.5).softmax(dim=3)
        found = fc((weights @ v).transpose(1, 2).flatten(2), f"{name}.attention.out_proj")
        return h + found.transpose(1, 2).reshape(b, c, rows, columns)

    def block(h: Tensor, name: str, attends: bool) -> Tensor:
        h = residual(h, f"{name}.residual")
        return attend(h, f"{name}.attention") if attends else h

    frequency = torch.tensor([10000 ** (-i / 64) for i in range(64)])
    angle = t[:, None] * frequency
    time = fc(silu(fc(torch.cat([angle.sin(), angle.cos()], dim=1), "time.0")), "time.2")
    h, kept = conv(x, "init", padding=1), []
    for i, flag in enumerate(attends):
        kept.append(h)
        h = conv(block(h, f"down.{i}", flag), f"shrink.{i}", stride=2, padding=1)
    h = block(block(h, "middle1", True), "middle2", False)
    for i, flag in enumerate(reversed(attends)):
        h = F.conv_transpose2d(h, p[f"grow.{i}.weight"], p[f"grow.{i}.bias"], stride=2, padding=1)
        h = block(torch.cat([h, kept[-1 - i]], dim=1), f"up.{i}", flag)
    return conv(silu(norm(h, "out.0")), "out.2", padding=1)


@pytest.mark.parametrize("attends", [(False, True), (True, False), (True, True)])
def test_the_attention_unet_computes_what_its_table_says(attends: tuple[bool, ...]) -> None:
    model, (x, t, _) = small_attention_unet(attention=attends), inputs()
    torch.testing.assert_close(model(x, t), attention_by_the_table(model, x, t, attends), rtol=1e-4, atol=1e-5)


def test_the_mlp_computes_what_its_table_says() -> None:
    model, t = mlp(16, dimension=3), torch.linspace(0, 1, 5)
    x = torch.randn(5, 3)
    h = torch.cat([x, t[:, None]], dim=1)
    w1, b1, w2, b2, w3, b3, w4, b4 = model.parameters()
    for w, b in ((w1, b1), (w2, b2), (w3, b3)):
        h = (h @ w.T + b).clamp(min=0)
    torch.testing.assert_close(model(x, t), h @ w4.T + b4)


@each_course_unet
def test_the_course_unet_computes_what_its_table_says(time: str, classes: int) -> None:
    model, (x, t, label) = course_unet(4, time, classes), inputs()
    one_hot = torch.zeros(3, 10)
    one_hot[0, 7] = one_hot[2, 0] = 1  # the second is told nothing: all zeros
    expected = course_by_the_table(model, x, t, one_hot)
    torch.testing.assert_close(model.train()(x, t, told(label) if classes else NO_CONDITION), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_practical_unet_computes_what_its_table_says(channels: int) -> None:
    model, (x, t, _) = practical_unet(4, channels), inputs(channels=channels)
    torch.testing.assert_close(model(x, t), practical_by_the_table(model, x, t))


# --- shapes ---------------------------------------------------------------------------------------------


def stations(model: nn.Module) -> list[tuple[int, int]]:
    """(channels, side) after each convolution and pooling in the order of a forward; repeats are left out."""
    seen: list[tuple[int, int]] = []

    def note(layer: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        if (here := (result.shape[1], result.shape[2])) not in seen[-1:]:
            seen.append(here)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.AvgPool2d | nn.MaxPool2d):
            layer.register_forward_hook(note)
    x, t, _ = inputs()
    assert model(x, t).shape == x.shape
    return seen


def test_the_course_unet_narrows_to_one_vector_and_widens_again() -> None:
    d = 6
    expected = [(d, 28), (d, 14), (2 * d, 7), (2 * d, 1), (2 * d, 7), (d, 14), (d, 28), (1, 28)]
    assert stations(course_unet(d, "add", 10)) == expected


def test_the_practical_unet_narrows_to_7x7_and_widens_again() -> None:
    expected = [(32, 28), (32, 14), (64, 14), (64, 7), (64, 14), (32, 14), (32, 28), (1, 28)]
    assert stations(practical_unet(32)) == expected


def test_the_attention_unet_narrows_by_strided_convolutions_and_widens_again() -> None:
    expected = [
        (32, 28),
        (64, 28),
        (64, 14),
        (128, 14),
        (128, 7),
        (64, 7),
        (64, 14),
        (32, 14),
        (32, 28),
        (16, 28),
        (1, 28),
    ]
    assert stations(attention_unet()) == expected


SHAPES = {  # network: (a shape it takes, a shape it does not)
    "course-unet": ((3, 28, 28), (1, 32, 32)),
    "practical-unet": ((3, 32, 28), (1, 30, 32)),
    "attention-unet": ((3, 32, 28), (1, 30, 32)),
    "mlp": ((5,), (1, 28, 28)),
}
CONFIGS = {
    "course-unet": CourseUNetConfig(width=4),
    "practical-unet": PracticalUNetConfig(width=4),
    "attention-unet": AttentionUNetConfig(widths=(16, 16, 16), middle=16),
    "mlp": MLPConfig(width=4),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_a_network_takes_the_shapes_it_can_and_refuses_the_others_in_one_line(kind: str) -> None:
    fits, does_not = SHAPES[kind]
    x = torch.randn(2, *fits)
    network = MODELS[kind](CONFIGS[kind], shape=fits, num_classes=0).eval()
    assert network(x, torch.rand(2), NO_CONDITION).shape == x.shape
    for wrong in (does_not, (2, 2)):
        with pytest.raises(UserError, match=rf"^{kind}: got samples of shape .*, expected \(") as refused:
            MODELS[kind](CONFIGS[kind], shape=wrong, num_classes=0)
        assert f"got samples of shape {wrong}, expected (" in str(refused.value)
        assert "\n" not in str(refused.value)


def test_the_networks_state_their_capabilities() -> None:
    assert all(issubclass(network, Network) for network in MODELS.values())
    assert {kind for kind, network in MODELS.items() if network.takes_classes} == {"course-unet", "patch-unet"}
    assert {kind for kind, network in MODELS.items() if network.trains_contiguous} == {"patch-unet"}
    assert not any(network.sees_source for network in MODELS.values())


# --- attention ------------------------------------------------------------------------------------------


def test_attention_knows_no_order_of_the_positions() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(16), torch.randn(2, 16, 3, 4)
    order = torch.randperm(12)
    shuffled = x.flatten(2)[:, :, order].reshape_as(x)
    torch.testing.assert_close(layer(shuffled), layer(x).flatten(2)[:, :, order].reshape_as(x), rtol=1e-4, atol=1e-5)


def test_attention_looks_across_the_whole_image_and_not_at_other_images() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(16), torch.randn(2, 16, 6, 6, requires_grad=True)
    layer(x)[0, :, 0, 0].sum().backward()
    reach = x.grad.abs().sum(dim=1)
    assert (reach[0] > 0).all()
    assert (reach[1] == 0).all()


def test_attention_flags_that_do_not_fit_the_widths_are_refused() -> None:
    for wrong in ({"attention": (True,)}, {"widths": (16,), "attention": ()}):
        with pytest.raises(UserError, match="attention flags"):
            small_attention_unet(**wrong)
    for wrong in ({"widths": (16, 24, 32)}, {"middle": 20}):
        with pytest.raises(UserError, match="multiples of 16"):
            small_attention_unet(**wrong)


# --- conditioning ---------------------------------------------------------------------------------------


def given_to(block: nn.Module, model: nn.Module, *inputs: Tensor | Condition) -> Tensor:
    """Return what `block` is given, once, while the model runs."""
    seen: list[Tensor] = []
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(*inputs)
    hook.remove()
    (only,) = seen
    return only


def test_the_null_label_and_no_label_are_an_all_zero_one_hot() -> None:
    model, (x, t, _) = course_unet(4, "add", 10).eval(), inputs()
    null = torch.full((3,), 10)
    for block in (model.class1, model.class2):
        for condition in (told(null), told(torch.tensor([7, 3, 0])).unconditional(), told(None), NO_CONDITION):
            assert torch.equal(given_to(block, model, x, t, condition), torch.zeros(3, 10))
    assert torch.equal(model(x, t, told(null)), model(x, t, NO_CONDITION))
    assert torch.equal(model(x, t, told(null)), model(x, t))


def test_multiplying_by_a_time_of_zero_leaves_only_the_skip() -> None:
    """With time blocks that pass their input on, t = 0 silences the bottleneck and t = 1 changes nothing."""
    d = 4
    model, (x, _, _) = course_unet(d, "multiply", 0).eval(), inputs()
    model.time1 = model.time2 = nn.Identity()  # [B, 1] scales every channel by t
    silent = given_to(model.up1, model, x, torch.zeros(3))
    full = given_to(model.up1, model, x, torch.ones(3))
    half = given_to(model.up1, model, x, torch.full((3,), 0.5))
    assert silent[:, : 2 * d].abs().max() == 0
    assert full[:, : 2 * d].abs().amin(dim=(0, 2, 3)).max() > 0
    torch.testing.assert_close(half[:, : 2 * d], full[:, : 2 * d] / 2)
    torch.testing.assert_close(silent[:, 2 * d :], full[:, 2 * d :])


@pytest.mark.parametrize("time, classes", [*COURSE.values(), ("practical", 0)], ids=[*COURSE, "practical"])
def test_the_prediction_depends_on_time_unless_it_is_told_none(time: str, classes: int) -> None:
    model = practical_unet(4) if time == "practical" else course_unet(4, time, classes)
    x, t, _ = inputs()
    early, late = (model.eval()(x, t * scale) for scale in (0.1, 1.0))
    per_sample = (early - late).abs().amax(dim=(1, 2, 3))
    assert (per_sample == 0).all() if time == "none" else (per_sample > 0).all()


def test_sinusoids_are_sines_then_cosines_of_falling_frequencies() -> None:
    t = torch.tensor([0.0, 0.3, 700.0])
    found = sinusoids(t)
    assert found.shape == (3, 128)
    for i in (0, 1, 63):
        angle = t * 10000 ** (-i / 64)
        torch.testing.assert_close(found[:, i], angle.sin(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[:, 64 + i], angle.cos(), rtol=1e-4, atol=1e-4)


def test_time_matters_to_the_attention_unet_and_its_scale_multiplies_it() -> None:
    x, t, _ = inputs()
    plain, scaled = small_attention_unet(), small_attention_unet(time_scale=1000.0)
    assert (plain(x, t) - plain(x, t / 2)).abs().amax(dim=(1, 2, 3)).min() > 0
    torch.testing.assert_close(scaled(x, t), plain(x, 1000 * t))


def test_time_matters_to_the_mlp() -> None:
    x = torch.randn(4, 2)
    assert (mlp(16)(x, torch.zeros(4)) - mlp(16)(x, torch.ones(4))).abs().amin() > 0


def test_the_prediction_depends_on_the_label() -> None:
    model, (x, t, _) = course_unet(4, "add", 10).eval(), inputs()
    predictions = torch.stack([model(x, t, told(torch.full((3,), label))).flatten(1) for label in range(11)], dim=1)
    assert all(torch.pdist(of_one_sample).min() > 0 for of_one_sample in predictions)


def test_classes_that_a_network_cannot_take_are_refused(tiny: Callable[..., Config]) -> None:
    takers = "--model course-unet or --model patch-unet"
    for kind in ("practical-unet", "attention-unet", "mlp"):
        assert not MODELS[kind].takes_classes
        config = tiny("noise2mnist-cfg-published", model=CONFIGS[kind])
        with pytest.raises(UserError, match=f"^{kind} takes no classes: got 10, expected 0, or {takers}$"):
            build_model(config)
    with pytest.raises(UserError, match="multiply"):
        course_unet(4, "multiply", 10)


# --- training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_a_few_optimizer_steps_lower_the_loss_of_a_fixed_batch(
    name: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(name)
    source, target = build_samplers(config, data_root=tmp_path, split="train", device=torch.device("cpu"))
    pairs = draw_pairs(config, source, target, 8, seed=0, step=0)
    if getattr(config.model, "adds_source", False):  # opens as the identity, and synthetic partners are alike
        pairs = pairs._replace(x1=-pairs.x1)
    torch.manual_seed(0)
    pipeline = Pipeline(config, build_model(config))
    optimizer = torch.optim.Adam(pipeline.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = pipeline.loss(*pairs)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in pipeline.model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


# --- patch-unet -----------------------------------------------------------------------------------------


def patch_unet(classes: int = 0, channels: int = 1, side: int = 28, **config) -> PatchUNet:
    torch.manual_seed(0)
    model = PatchUNet(PatchUNetConfig(**config), shape=(channels, side, side), num_classes=classes)
    for p in model.parameters():  # what opens as zero would hide the rest
        nn.init.normal_(p, std=0.05)
    return model


def small_patch_unet(**config) -> PatchUNet:
    return patch_unet(**{"widths": (16, 24), "blocks": (1, 2), **config})


@pytest.mark.parametrize("classes", [0, 10])
def test_patch_unet_has_the_parameters_of_its_table(classes: int) -> None:
    def conv(cin: int, cout: int, k: int = 3) -> int:
        return k * k * cin * cout + cout

    def block(cin: int, cout: int) -> int:
        own = 2 * cin + conv(cin, cout) + 2 * cout + conv(cout, cout) + 128 * 2 * cout + 2 * cout
        return own + (conv(cin, cout, 1) if cin != cout else 0)

    wanted = 64 * 128 + 128 + 128 * 128 + 128 + (11 * 128 if classes else 0)
    wanted += conv(4, 48) + 2 * block(48, 48) + conv(48, 96) + 2 * block(96, 96) + conv(96, 48, 2)
    wanted += block(96, 48) + block(48, 48) + 2 * 48 + conv(48, 4)
    assert sum(p.numel() for p in patch_unet(classes, widths=(48, 96), blocks=(2, 2)).parameters()) == wanted


def test_patch_unet_opens_as_zero_and_its_blocks_as_the_identity() -> None:
    model = PatchUNet(PatchUNetConfig(), shape=(1, 28, 28), num_classes=0)
    xt, t, _ = inputs()
    assert not model(xt, t).any()
    h = torch.randn(2, 16, 4, 4)
    assert torch.equal(ModulatedBlock(16, 16)(h, torch.randn(2, 128)), h)


def test_a_modulated_block_is_its_formula() -> None:
    torch.manual_seed(0)
    block = ModulatedBlock(16, 8)
    for p in block.parameters():
        nn.init.normal_(p, std=0.2)
    x, embedding = torch.randn(2, 16, 5, 6), torch.randn(2, 128)
    h = block.conv1(F.silu(F.group_norm(x, 8, block.norm1.weight, block.norm1.bias)))
    scale, shift = (part[:, :, None, None] for part in block.modulation(embedding).split(8, dim=1))
    h = F.group_norm(h, 8, block.norm2.weight, block.norm2.bias) * (1 + scale) + shift
    torch.testing.assert_close(block(x, embedding), block.skip(x) + block.conv2(F.silu(h)))


def patch_by_the_table(model: PatchUNet, x: Tensor, t: Tensor, label: Tensor, image: Tensor | None = None) -> Tensor:
    """Frequencies of √t from 1 to 200; the patch of 2×2 pixels in row-major order, channel by channel."""
    layers, (b, c, height, width) = Layers(model), x.shape
    p, norm, conv, fc = layers.p, layers.norm, layers.conv, layers.fc
    angle = t[:, None] ** 0.5 * torch.tensor([200 ** (i / 31) for i in range(32)], dtype=t.dtype)
    time = fc(silu(fc(torch.cat([angle.sin(), angle.cos()], dim=1), "time.0")), "time.2")
    embedding = silu(time + p["label.weight"][label])

    def block(h: Tensor, name: str) -> Tensor:
        scale, shift = fc(embedding, f"{name}.modulation")[:, :, None, None].chunk(2, dim=1)
        inner = norm(conv(silu(norm(h, f"{name}.norm1")), f"{name}.conv1", padding=1), f"{name}.norm2")
        skip = conv(h, f"{name}.skip") if f"{name}.skip.weight" in p else h
        return skip + conv(silu((1 + scale) * inner + shift), f"{name}.conv2", padding=1)

    seen = x if image is None else torch.cat([x, image], dim=1)
    patches = seen.reshape(b, -1, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    h = kept = block(conv(patches, "stem", padding=1), "down.0")
    h = conv(h, "shrink", stride=2, padding=1)
    for i in range(len(model.middle)):
        h = block(h, f"middle.{i}")
    h = F.conv_transpose2d(h, p["grow.weight"], p["grow.bias"], stride=2)
    h = block(torch.cat([h, kept], dim=1), "up.0")
    patches = conv(silu(norm(h, "norm")), "out", padding=1).unflatten(1, (c, 2, 2))
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(x.shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_patch_unet_computes_what_its_table_says(channels: int) -> None:
    model, (x, t, label) = small_patch_unet(classes=10, channels=channels).double(), inputs(channels=channels)
    x, t = x.double(), t.double()
    expected = patch_by_the_table(model, x, t, label)
    assert expected.std() > 0.01
    torch.testing.assert_close(model(x, t, told(label)), expected)


def test_patch_unet_that_sees_the_source_has_its_patches_beside_those_of_x_t() -> None:
    model, (x, t, label) = small_patch_unet(classes=10, channels=3, sees_source=True).double(), inputs(channels=3)
    x, t, image = x.double(), t.double(), torch.randn(x.shape, dtype=torch.float64)
    expected = patch_by_the_table(model, x, t, label, image)
    torch.testing.assert_close(model(x, t, Condition(label, image, 10)), expected)
    assert (expected - patch_by_the_table(model, x, t, label, image.flip(0))).abs().max() > 1e-3


def test_patch_unet_that_adds_the_source_learns_what_is_to_change() -> None:
    (x, t, _), image = inputs(channels=3), torch.randn(3, 3, 28, 28)
    config = PatchUNetConfig(widths=(16, 24), blocks=(1, 2), sees_source=True, adds_source=True)
    untrained = PatchUNet(config, shape=(3, 28, 28), num_classes=0)
    assert torch.equal(untrained(x, t, Condition(image=image)), image)
    plain, added = (small_patch_unet(channels=3, sees_source=True, adds_source=added) for added in (False, True))
    added.load_state_dict(plain.state_dict())
    told = Condition(image=image)
    torch.testing.assert_close(added(x, t, told), plain(x, t, told) + image)


def test_patch_unet_hears_time_and_label_of_each_sample() -> None:
    xt, t, label = inputs()
    model = small_patch_unet(classes=10).eval()
    answer = model(xt, t, told(label))
    assert answer.shape == xt.shape
    for changed in (model(xt, t.flip(0), told(label)), model(xt, t, told(label.flip(0)))):
        moved = (changed - answer).abs().amax(dim=(1, 2, 3)) > 1e-5
        assert moved.tolist() == [True, False, True]  # the middle one is its own mirror image


def test_patch_unet_tells_times_near_the_source_apart() -> None:
    """What √t is for: from t = 0 to 0.01 the embedding moves about as far as from 0.5 to 1."""
    model = small_patch_unet()
    near, far = (model.embed(torch.tensor(pair), None).diff(dim=0).norm() for pair in ([0.0, 0.01], [0.5, 1.0]))
    assert near > far / 4


def test_patch_unet_of_two_times_is_the_one_of_one_time_where_they_are_equal() -> None:
    """Before training at other times too: so it can go on from the weights of a flow."""
    (x, t, label), one = inputs(), small_patch_unet(classes=10)
    two = small_patch_unet(classes=10, two_times=True)
    missing, unexpected = two.load_state_dict(one.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("length.") for name in missing)
    expected, later = one(x, t, told(label)), torch.stack([t, t + 0.5 * (1 - t)], dim=1)
    assert torch.equal(two(x, t, told(label)), expected)
    assert torch.equal(two(x, torch.stack([t, t], dim=1), told(label)), expected)
    assert ((two(x, later, told(label)) - expected).abs().amax(dim=(1, 2, 3)) > 1e-5).tolist() == [t < 1 for t in t]
    untrained = PatchUNet(
        PatchUNetConfig(widths=(16, 24), blocks=(1, 2), two_times=True), shape=(1, 28, 28), num_classes=0
    )
    assert not untrained.embed(later, None).sub(untrained.embed(t, None)).any()


@pytest.mark.parametrize("channels, side", [(1, 4), (3, 32), (1, 30), (3, 5)])
def test_patch_unet_takes_any_size_as_the_next_multiple_of_4_of_its_reflection(channels: int, side: int) -> None:
    x, t, larger = torch.randn(2, channels, side, side), torch.rand(2), side + -side % 4
    source = torch.randn(2, channels, side, side)
    model = small_patch_unet(channels=channels, side=side, sees_source=True)
    wide, wide_source = (F.pad(image, (0, larger - side) * 2, mode="reflect") for image in (x, source))
    expected = model(wide, t, Condition(image=wide_source))[..., :side, :side]
    torch.testing.assert_close(model(x, t, Condition(image=source)), expected)


def test_each_level_of_patch_unet_halves_the_size_and_looks_further() -> None:
    """The lowest of four levels, at a sixteenth of the size, sees what blocks at half the size cannot reach."""
    few, many = (patch_unet(side=64, widths=(8,) * n, blocks=(1,) * n).eval() for n in (2, 4))
    sizes = []
    lowest = many.middle[0].middle[0].middle[0]
    lowest.register_forward_hook(lambda module, given, answer: sizes.append(tuple(answer.shape)))
    assert many(torch.zeros(2, 1, 64, 64), torch.rand(2)).shape == (2, 1, 64, 64)
    assert sizes == [(2, 8, 4, 4)]
    reach = []
    for model in (few, many):
        for module in model.modules():  # which would look everywhere
            if isinstance(module, nn.GroupNorm):
                module.forward = lambda x: x  # type: ignore[method-assign]
        x = torch.zeros(1, 1, 64, 64, requires_grad=True)
        model(x, torch.rand(1))[0, 0, 32, 0].backward()
        reach.append(int(x.grad[0, 0, 32].abs().nonzero().max()))  # type: ignore[union-attr]
    assert reach[0] < 40 < reach[1]


def test_more_levels_are_the_fewer_ones_around_a_middle() -> None:
    """Where the inner levels add nothing, the three levels compute what two do without blocks in the middle."""
    model, two = (patch_unet(side=32, widths=(8,) * n, blocks=(1,) * n) for n in (3, 2))
    two.middle = nn.ModuleList()
    two.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("middle")})
    model.middle[0].through = lambda h, embedding: h  # type: ignore[method-assign, assignment]
    x, t = torch.randn(2, 1, 32, 32), torch.rand(2)
    assert torch.equal(model(x, t), two(x, t))


@pytest.mark.parametrize(
    "config, side, got",
    [
        ({"widths": (12, 24)}, 28, "(12, 24)"),
        ({"widths": (8, 16, 32)}, 28, "(8, 16, 32)"),
        ({"widths": (8,), "blocks": (1,)}, 28, "(8,)"),
        ({"adds_source": True}, 28, "adds_source without sees_source"),
    ],
)
def test_patch_unet_refuses_what_does_not_fit(config: dict, side: int, got: str) -> None:
    with pytest.raises(UserError, match=r"^patch-unet: got .*, expected [^\n]*$") as refused:
        PatchUNet(PatchUNetConfig(**config), shape=(1, side, side), num_classes=0)
    assert got in str(refused.value)


@pytest.mark.parametrize("name", ["fashion2mnist", "fashion2mnist-published", "noise2mnist-cfg-published"])
def test_kernels_lie_as_is_fastest_to_train_and_to_run(tiny: Callable[..., Config], name: str) -> None:
    config = tiny(name)
    for train, precision in ((False, "fp32"), (True, "fp32"), (False, "bf16")):
        model = to_device(build_model(config), "cpu", train=train, precision=precision)
        (kernel,) = [p for p in model.parameters() if p.ndim == 4 and min(p.shape) > 1][:1]
        assert kernel.is_contiguous() == ((train or precision == "bf16") and name == "fashion2mnist")
        assert kernel.is_contiguous(memory_format=torch.channels_last) != kernel.is_contiguous()


@pytest.mark.parametrize("name", ["fashion2mnist", "fashion2mnist-published", "noise2cifar"])
def test_a_network_that_runs_in_bf16_answers_in_float32_nearly_as_before(
    tiny: Callable[..., Config], name: str
) -> None:
    config = tiny(name)
    model = build_model(config).eval()
    for parameter in model.parameters():  # blocks that start at zero would hide what the others do
        torch.nn.init.normal_(parameter, std=0.1)
    xt, t, weights = torch.randn(3, *config.shape), torch.rand(3), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        exact = to_device(model, "cpu")(xt, t)
        found = to_device(model, "cpu", precision="bf16")(xt, t)
    assert found.dtype == torch.float32
    assert 0 < (found - exact).norm() < 0.05 * exact.norm()  # bf16 has 8 bits
    after = model.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", ["noise2mnist-cfg", "noise2mnist-cfg-published"])
def test_no_condition_is_the_null_label(tiny: Callable[..., Config], name: str) -> None:
    model = build_model(tiny(name)).eval()
    for parameter in model.parameters():  # blocks that start at zero would hide the label
        torch.nn.init.normal_(parameter, std=0.1)
    xt, t = torch.randn(3, 1, 28, 28), torch.rand(3)
    null = Condition(torch.full((3,), 10), num_classes=10)
    assert torch.equal(model(xt, t), model(xt, t, null))
    assert not torch.equal(model(xt, t), model(xt, t, Condition(torch.zeros(3, dtype=torch.long), num_classes=10)))
