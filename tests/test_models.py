"""The networks are those of their published tables: models/."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.presets import PIPELINES
from configs.schema import Config, CourseUNetConfig, PracticalUNetConfig, UserError
from datasets import build_sampler
from models import build_model
from models.course_unet import CourseUNet
from models.practical_unet import PracticalUNet
from pipelines.batches import draw_pairs
from pipelines.pipeline import Pipeline

COURSE = {  # name: how time enters, classes
    "none": ("none", 0),
    "multiply": ("multiply", 0),
    "add": ("add", 0),
    "class and time": ("add", 10),
}
each_course_unet = pytest.mark.parametrize("time, classes", COURSE.values(), ids=COURSE.keys())


def course_unet(width: int, time: str, classes: int, channels: int = 1) -> CourseUNet:
    torch.manual_seed(0)
    return CourseUNet(CourseUNetConfig(width=width, time=time), channels=channels, classes=classes)


def practical_unet(width: int, channels: int = 1) -> PracticalUNet:
    torch.manual_seed(0)
    return PracticalUNet(PracticalUNetConfig(width=width), channels=channels, classes=0)


def inputs(count: int = 3, channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """xt, t and labels, with the null label of ten classes among them."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, channels, 28, 28, generator=g),
        torch.linspace(0.1, 0.9, count),
        torch.tensor([7, 10, 0])[:count],
    )


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
    ],
    ids=["course D=128 none", "course D=64 multiply", "course D=64 add", "course D=64 class", "practical"],
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
        if model.classes:
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


@each_course_unet
def test_the_course_unet_computes_what_its_table_says(time: str, classes: int) -> None:
    model, (x, t, label) = course_unet(4, time, classes), inputs()
    one_hot = torch.zeros(3, 10)
    one_hot[0, 7] = one_hot[2, 0] = 1  # the second is told nothing: all zeros
    expected = course_by_the_table(model, x, t, one_hot)
    torch.testing.assert_close(model.train()(x, t, label if classes else None), expected)


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


# --- conditioning ---------------------------------------------------------------------------------------


def given_to(block: nn.Module, model: nn.Module, *inputs: Tensor | None) -> Tensor:
    """What `block` is given, once, while the model runs."""
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
        for label in (null, None):
            assert torch.equal(given_to(block, model, x, t, label), torch.zeros(3, 10))
    assert torch.equal(model(x, t, null), model(x, t, None))


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


def test_the_prediction_depends_on_the_label() -> None:
    model, (x, t, _) = course_unet(4, "add", 10).eval(), inputs()
    predictions = torch.stack([model(x, t, torch.full((3,), label)).flatten(1) for label in range(11)], dim=1)
    assert all(torch.pdist(of_one_sample).min() > 0 for of_one_sample in predictions)


def test_classes_that_a_network_cannot_take_are_refused() -> None:
    with pytest.raises(UserError, match="practical-unet takes no classes: found 10"):
        PracticalUNet(PracticalUNetConfig(), channels=1, classes=10)
    with pytest.raises(UserError, match="multiply"):
        course_unet(4, "multiply", 10)


# --- training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_a_few_optimiser_steps_lower_the_loss_of_a_fixed_batch(
    name: str, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny(name)
    source, target = (
        build_sampler(part, config.shape, data_root=tmp_path, split="train", device=torch.device("cpu"))
        for part in (config.source, config.target)
    )
    pairs = draw_pairs(config, source, target, 8, seed=0, step=0)
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
