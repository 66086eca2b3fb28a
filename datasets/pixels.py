"""Pixels and tensors: the conversion and its exact inverse."""

import torch
from PIL import Image
from torch import Tensor


def to_images(pixels: Tensor) -> Tensor:
    """Return uint8 pixels 0 … 255, or uint16 pixels 0 … 65535, of any shape as float32 in [-1, 1]."""
    return pixels.to(torch.float32).div_(torch.iinfo(pixels.dtype).max / 2).sub_(1.0)


def to_pixels(images: Tensor) -> Tensor:
    """Return floats in [-1, 1] of any shape as uint8 0 … 255, clipped: the exact inverse of `to_images` for uint8."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Return float [C, H, W] in [-1, 1] as a Pillow image to look at: of its first three channels, or its first."""
    pixels = to_pixels(image[: 3 if len(image) >= 3 else 1]).cpu().movedim(0, -1).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
