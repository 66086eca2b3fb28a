"""Pixels and tensors: the conversion, its exact inverse, and the one loader of image files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from configs.schema import UserError

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


def to_images(pixels: Tensor) -> Tensor:
    """uint8 0 … 255 -> float32 −1 … 1, any shape."""
    return pixels.to(torch.float32).div_(127.5).sub_(1.0)


def to_pixels(images: Tensor) -> Tensor:
    """float −1 … 1 -> uint8 0 … 255, any shape: the exact inverse of `to_images`; values outside are clipped."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """float [C, H, W] in [-1, 1], C = 1 or 3 -> a Pillow image."""
    pixels = to_pixels(image).cpu().movedim(0, -1).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def load_image(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """An image file as float [C, H, W] in [-1, 1], scaled to fit inside shape (C, H, W) and centred on black.

    EXIF orientation is applied, transparency composited on black, 16-bit grey scaled down without wrapping.
    Raises UserError naming the file and what is wrong with it.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image = _eight_bit(image).convert("RGBA" if _transparent(image) else "RGB")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            image = image.convert("L" if channels == 1 else "RGB")
            image = _fit(image, width, height)
    except Exception as error:  # Pillow's plugins raise all sorts of errors on broken files
        raise UserError(f"{path}: not a readable image ({error!r})") from error
    pixels = torch.from_numpy(np.array(image))
    return to_images(pixels[None] if channels == 1 else pixels.movedim(-1, 0))


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to touch the frame from inside, at least one pixel each way, and centred on black."""
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    out = Image.new(image.mode, (width, height))
    fitted = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
    out.paste(fitted, ((width - size[0]) // 2, (height - size[1]) // 2))
    return out


def _transparent(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _eight_bit(image: Image.Image) -> Image.Image:
    """Pillow clips 16-bit grey when it converts it: scale it by 257 first (65535 / 255)."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image, dtype=np.float64)
    return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
