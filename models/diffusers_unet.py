"""A trained UNet of the library diffusers as a network of ours."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from flowferry.configs.validation import UserError
from flowferry.models.base import Network
from flowferry.pipelines.flow.conditions import NO_CONDITION, Condition
from flowferry.pipelines.flow.paths import Path

NEAR = 1e-2  # of an index: rounding errors of t in single precision


class DiffusersUNet(Network):
    """Asks a UNet2DModel or a UNet2DConditionModel in its own conventions of time, and converts its answer.

    Its index i = 0 … T − 1 is level i + 1 of T, at t = 1 − (i + 1)/T. Its classes are texts. One that enlarges images
    is shown the image, stretched and noised to the index `noise_level`, as `condition.image`.

    unet: the model; path: that of its scheduler; learns_variance: whether the second half of its answer says where the
    logarithm of the variance lies, from −1 to 1; noising: the path of that noise, for a UNet that enlarges.
    """

    takes_classes: ClassVar[bool] = True
    block_size: ClassVar[int | None] = 4
    noise_level: ClassVar[int] = 250
    """As published (Saharia et al. 2022 call it the augmentation level)."""

    def __init__(
        self, unet: nn.Module, path: Path, *, learns_variance: bool = False, noising: Path | None = None
    ) -> None:
        super().__init__()
        self.unet, self.trained_path, self.levels = unet, path, path.levels or 0
        self.learns_variance, self.noising = learns_variance, noising
        self.computes_on: torch.device | None = None
        """Where its layers are brought when they are needed; None: they are there."""
        self.texts: Tensor | None = None
        """The embeddings [num_classes + 1, L, D] of the classes, and last of the empty text."""

    @property
    def device(self) -> torch.device:
        """Where it computes; its weights may wait elsewhere."""
        return self.computes_on or next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights, in which it computes."""
        return next(self.unet.parameters()).dtype

    @property
    def text_channels(self) -> int | None:
        """The length D of the vectors that stand for the tokens of a text; None where it takes no text."""
        options: Any = self.unet.config
        return options.get("encoder_hid_dim") or options.get("cross_attention_dim")

    def with_texts(self, texts: Sequence[Tensor]) -> Self:
        """Return this network with the embeddings [L, D] of its classes and, last, of the empty text.

        Raises UserError for embeddings that do not fit it or one another.
        """
        for text in texts:
            if text.shape != (len(texts[0]), self.text_channels):
                expected = f"[{len(texts[0])}, {self.text_channels}]"
                raise UserError(f"embeddings: got the shape {list(text.shape)}, expected {expected}")
        knowing = copy.copy(self)  # the same UNet
        knowing.texts = torch.stack(list(texts)).to(self.device)
        return knowing

    def forward(self, xt: Tensor, t: Tensor, condition: Condition = NO_CONDITION) -> Tensor:
        index = self.levels * (1 - t.double()) - 1
        index = torch.where((index - index.round()).abs() < NEAR, index.round(), index).float()
        seen = xt if self.noising is None else torch.cat([xt, self._image(condition)], dim=1)
        answer = self.unet(seen.to(self.dtype), index, **self._told(condition, xt.shape[0])).sample.to(xt.dtype)
        prediction, share = answer[:, : xt.shape[1]], (answer[:, xt.shape[1] :] + 1) / 2
        return torch.cat([prediction, share], dim=1) if self.learns_variance else prediction

    def _told(self, condition: Condition, count: int) -> dict[str, Tensor]:
        """Return the further arguments of a batch of `count` samples."""
        told, dtype = {}, self.dtype
        if self.text_channels is not None:
            if self.texts is None or condition.label is None:
                raise UserError("got no text for a UNet that takes texts, expected --prompt, or Pipeline.with_prompts")
            told["encoder_hidden_states"] = self.texts[condition.label].to(dtype)
        if self.noising is not None:
            told["class_labels"] = torch.full((count,), self.noise_level, device=self.device)
        return told

    def _image(self, condition: Condition) -> Tensor:
        if condition.image is None:
            raise UserError("got no image for a UNet that enlarges images, expected it in sample --enlarge")
        return condition.image


def is_untrained(model: nn.Module) -> bool:
    """Return whether all normalizations are as they were initialized, 1 and 0, which no training leaves them at."""
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm) and m.weight is not None]
    return bool(norms) and all(bool((m.weight == 1).all()) and not m.bias.any() for m in norms)
