"""Convert the colors of images to sRGB, which every image here is taken for."""

from functools import cache, lru_cache
from io import BytesIO
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

OF_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # color space of a profile -> mode of its images
ROUNDING = 2  # of 255: a profile that changes no color by more is sRGB itself


@cache
def srgb_profile() -> bytes:
    """Return the ICC profile of sRGB, always the same bytes."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes([7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0])  # the date of making, here always 2000-01-01
    return bytes(profile)


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of any 8-bit mode with its colors converted from its ICC profile to sRGB.

    Without a profile, with one that cannot be read and with one of another color space, it is returned as it is.
    """
    if profile is None:
        return image
    transparent = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    mode = image.mode
    if mode.startswith("P") or transparent:
        mode = "L" if mode in ("LA", "La") else "RGB"
    transform = transform_of(profile, mode)
    if transform is None:
        return image
    alpha = image.convert("RGBA").getchannel("A") if transparent else None
    converted = transform.apply(image if image.mode == mode else image.convert("RGBA").convert(mode))
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def to_srgb_values(color: NDArray[np.float64], profile: bytes | None) -> NDArray[np.float64]:
    """Return gray or RGB values [H, W, 1 or 3] in [0, 1], of any depth, converted from their ICC profile to sRGB.

    Pillow converts 8 bits alone, so a color is interpolated linearly between the 8 colors of 8 bits around it, a gray
    between two: it is no truer than with 8 bits, but smaller steps stay smaller.
    """
    transform = None if profile is None else transform_of(profile, "L" if color.shape[-1] == 1 else "RGB")
    if transform is None:
        return color
    level = color.clip(0, 1) * 255
    below = np.floor(level).clip(max=254)
    beyond, converted = level - below, np.zeros_like(color)
    for corner in product((0, 1), repeat=color.shape[-1]):
        around = (below + corner).astype(np.uint8)
        weight = np.where(corner, beyond, 1 - beyond).prod(axis=-1, keepdims=True)
        image = Image.fromarray(around[..., 0] if color.shape[-1] == 1 else around)
        converted += weight * np.asarray(transform.apply(image))[..., : color.shape[-1]]
    return converted / 255


@lru_cache(maxsize=16)
def transform_of(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform of images of `mode` to sRGB; None where there is none, or where it would change nothing."""
    try:
        source = ImageCms.getOpenProfile(BytesIO(profile))
        if OF_SPACE.get(source.profile.xcolor_space) != mode:
            return None
        # Optimized, the transform of a gray curve is up to ten levels off in the shadows.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
        probe = probe_image(mode)
        moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform if np.abs(moved).max() > ROUNDING else None


def probe_image(mode: str) -> Image.Image:
    """Return an image of all combinations of a few values of each channel."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.stack(np.meshgrid(*[np.linspace(0, 255, 9).round()] * channels), -1).reshape(1, -1, channels)
    return Image.fromarray(values.astype(np.uint8).squeeze(-1) if channels == 1 else values.astype(np.uint8), mode)
