"""A UNet of diffusers as a network of ours: models/diffusers_unet.py."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flowferry.configs.validation import UserError
from flowferry.models.diffusers_unet import DiffusersUNet, is_untrained
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.flow.paths import diffusion
from flowferry.pipelines.flow.times import strided_grid

DIM = 4


class Recorder(nn.Module):
    """Answers its input and its negative beside it, and keeps what it was asked."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config, self.weight, self.asked = config, nn.Parameter(torch.zeros(1)), list[Any]()

    def forward(self, sample: Tensor, index: Tensor, **told: Tensor) -> SimpleNamespace:
        self.asked.append((sample, index, told))
        return SimpleNamespace(sample=torch.cat([sample, -sample], dim=1))


def network(levels: int = 1000, config: dict[str, Any] | None = None, **options: Any) -> tuple[DiffusersUNet, Recorder]:
    unet, betas = Recorder(**(config or {})), torch.linspace(1e-4, 2e-2, levels, dtype=torch.float64)
    return DiffusersUNet(unet, diffusion(betas), **options), unet


@pytest.mark.parametrize("levels", [20, 1000, 4000])
def test_level_s_is_asked_as_index_s_minus_1(levels: int) -> None:
    ours, unet = network(levels)
    for t, index in zip(strided_grid(levels, 1, levels=levels), range(levels - 1, -1, -1), strict=False):
        if index % 7 == 0:
            ours(torch.zeros(2, 3, 1, 1), t.expand(2))
            assert torch.equal(unet.asked[-1][1], torch.full((2,), float(index)))
    ours(torch.zeros(1, 3, 1, 1), torch.tensor([0.5 + 0.5 / levels]))  # between two levels
    assert unet.asked[-1][1].item() == pytest.approx(levels / 2 - 1.5, abs=1e-2)


def test_the_second_half_of_an_answer_is_a_share_or_left_out() -> None:
    x, t = torch.randn(2, 3, 4, 4), torch.zeros(2)
    assert torch.equal(network()[0](x, t), x)
    torch.testing.assert_close(network(learns_variance=True)[0](x, t), torch.cat([x, (1 - x) / 2], dim=1))


def test_a_class_is_told_as_its_text_and_the_null_label_as_the_empty_one() -> None:
    ours, unet = network(config={"cross_attention_dim": 7, "encoder_hid_dim": DIM})
    texts = [torch.randn(5, DIM) for _ in range(3)]
    knowing, x = ours.with_texts(texts), torch.zeros(3, 3, 4, 4)
    assert ours.texts is None and knowing.unet is ours.unet
    knowing(x, torch.zeros(3), Condition(torch.tensor([2, 0, 1]), num_classes=2))
    told = unet.asked[-1][2]["encoder_hidden_states"]
    assert torch.equal(told, torch.stack([texts[2], texts[0], texts[1]]))
    for asked, condition in ((ours, Condition(torch.tensor([0, 0, 0]))), (knowing, Condition())):
        with pytest.raises(UserError, match="got no text for a UNet that takes texts"):
            asked(x, torch.zeros(3), condition)
    with pytest.raises(UserError, match=r"embeddings: got the shape \[6, 4\], expected \[5, 4\]"):
        ours.with_texts([texts[0], torch.zeros(6, DIM)])


def test_a_unet_that_enlarges_sees_the_small_image_beside_x_and_how_noisy_it_is() -> None:
    ours, unet = network(noising=diffusion(torch.full((1000,), 0.01, dtype=torch.float64)))
    x, image = torch.randn(2, 2, 3, 4, 4)[:, :, :2].unbind(0)
    ours(x, torch.zeros(2), Condition(image=image))
    sample, _, told = unet.asked[-1]
    assert torch.equal(sample, torch.cat([x, image], dim=1)) and told["class_labels"].tolist() == [250, 250]
    with pytest.raises(UserError, match="got no image for a UNet that enlarges images"):
        ours(x, torch.zeros(2))


def test_a_network_is_untrained_where_no_normalization_has_moved() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.LayerNorm(8))
    assert is_untrained(model)
    assert not is_untrained(nn.Conv2d(3, 8, 3))
    with torch.no_grad():
        model[2].bias[3] += 1e-3
    assert not is_untrained(model)
