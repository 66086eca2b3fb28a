"""Estimates of a clean image from a noisy one: a blur, one evaluation of the network, a whole chain; and their errors.

Errors are on the scale where black is 0 and white is 1. A noise level is given as a share s/T of all T levels, which is
at t = 1 − s/T.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from flowferry.pipelines import editing
from flowferry.pipelines.flow import edits
from flowferry.pipelines.flow.times import list_length
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.visualization.denoising import squared_error
from flowferry.pipelines.visualization.plots import figure

PUBLISHED_LEVELS, PUBLISHED_STRIDE = 1000, 30
BLURS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # the σ among which the best is looked for


def strided(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with ancestral steps through 990, 960, …, 0 of 1,000 levels, counted from 0, as published.

    These are 34 steps. A path of other levels takes the same share of them, one without levels as many.
    """
    levels = pipeline.path.levels or PUBLISHED_LEVELS
    stride = max(1, round(PUBLISHED_STRIDE * levels / PUBLISHED_LEVELS))
    return pipeline.using(solver="ancestral", stride=stride, steps=list_length(levels, stride))


# --- estimates --------------------------------------------------------------------------------------------


def blur(images: Tensor, sigma: float) -> Tensor:
    """Return images [B, C, H, W] blurred by a Gaussian of σ pixels, with a kernel 6σ + 1 pixels wide.

    Beyond their edges they are mirrored, so that half of the kernel must be shorter than a side.
    """
    return edits.gaussian_blur(images, sigma, radius=round(3 * sigma))


def one_step(pipeline: Pipeline, noisy: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
    """Return the clean images [B, C, H, W] that one evaluation at time t < 1 implies, clipped to [-1, 1].

    noisy: [B, C, H, W], at time t. labels: int64 [B], or None for no class.
    """
    noisy = noisy.to(pipeline.device)
    velocity = pipeline.velocity(noisy, labels)
    return edits.denoised(pipeline.path, velocity, noisy, torch.tensor(t, device=noisy.device)).clamp(-1, 1)


def chain(
    pipeline: Pipeline, noisy: Tensor, t: float, labels: Tensor | None = None, *, rows: Sequence[int] | None = None
) -> list[Tensor]:
    """Return the states [B, C, H, W] of the strided chain from time t to 1, at the times `strided(pipeline).grid(t)`.

    The last ones are clipped to [-1, 1]. noisy, labels: as for `one_step`. rows: as for `Pipeline.translate`.
    """
    *states, end = strided(pipeline).trajectory(noisy, labels, start=t, rows=rows)
    return [*states, end.clamp(-1, 1)]


# --- errors by level --------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """Mean squared errors at one noise level, against the clean images."""

    share: float
    """The level's share s/T."""
    noisy: float
    """Of the noisy images themselves."""
    blur: float
    """Of the noisy images, blurred as asked."""
    best_blur: float
    """Of the best of BLURS, with the brightness and contrast that suit the clean images best."""
    one_step: float
    chain: float


def errors_by_level(pipeline: Pipeline, clean: Tensor, shares: Sequence[float], sigma: float) -> list[Errors]:
    """Return the errors over clean images [N, C, H, W] at each noise level, without a class.

    The noise is the same at every level. sigma: of the blur.
    """
    clean = clean.to(pipeline.device)
    found = []
    for share in shares:
        noisy = editing.noised(pipeline, clean, 1 - share)
        estimates = (noisy, blur(noisy, sigma), best_blur(noisy, clean), *restored(pipeline, noisy, 1 - share))
        found.append(Errors(share, *(squared_error(estimate.clamp(-1, 1), clean) for estimate in estimates)))
    return found


def restored(pipeline: Pipeline, noisy: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Return what one step and what the chain make of noisy images [N, C, H, W]."""
    steps = in_blocks(pipeline, noisy, lambda x, rows: one_step(pipeline, x, t))
    return steps, in_blocks(pipeline, noisy, lambda x, rows: chain(pipeline, x, t, rows=rows)[-1])


def in_blocks(pipeline: Pipeline, images: Tensor, do: Callable[[Tensor, Sequence[int]], Tensor]) -> Tensor:
    """Return do(images, their numbers) for images [N, C, H, W], as many at a time as are fastest."""
    blocks = torch.arange(len(images)).split(pipeline.block_size)
    return torch.cat([do(images[rows], rows.tolist()) for rows in blocks])


def best_blur(noisy: Tensor, clean: Tensor) -> Tensor:
    """Return a·blur(noisy) + b with the σ of BLURS and the a and b that come nearest to the clean images.

    This is more than a blur can know: σ, a and b are chosen with the answer at hand, by least squares over all images.
    """

    def fitted(blurred: Tensor) -> Tensor:
        x, y = blurred - blurred.mean(), clean - clean.mean()
        return clean.mean() + (x * y).mean() / x.square().mean() * x

    usable = [sigma for sigma in BLURS if round(3 * sigma) < min(clean.shape[-2:])]
    return min((fitted(blur(noisy, sigma)) for sigma in usable), key=lambda made: squared_error(made, clean))


def error_curves(errors: Sequence[Errors], title: str, sigma: float) -> Image.Image:
    """Plot the errors against the noise level s/T."""
    lines = {
        "blur": (f"blur, σ = {sigma:g}", "tab:gray", "o-"),
        "best_blur": ("the best blur, contrast restored", "tab:gray", "o:"),
        "one_step": ("one step", "tab:blue", "o-"),
        "chain": ("iterative", "tab:orange", "o-"),
    }

    def draw(axes: Axes) -> None:
        shares = [e.share for e in errors]
        for name, (label, color, style) in lines.items():
            axes.plot(shares, [getattr(e, name) for e in errors], style, color=color, markersize=3, label=label)
        axes.set(xlabel="noise level s/T", ylabel="mean squared error", xlim=(0, 1), yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()

    return figure(draw, title)
