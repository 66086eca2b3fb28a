"""Edits with a trained model: the state that a trajectory starts from, and functions that wrap a velocity or a step.

Each is a formula for any path and prediction. Velocities come guided: an edit knows nothing of conditions. Where a
formula noises an image, x0 is taken to be unit Gaussian noise; the mixes of velocities hold for any source.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.pipelines.flow.paths import Path
from flowferry.pipelines.flow.solvers import Noise, Step, Velocity, ends_at_target, transition

# --- images on their way ---------------------------------------------------------------------------------


def noised(path: Path, x1: Tensor, t: Tensor, noise: Noise) -> Tensor:
    """Return x_t = α_t·ε + β_t·x1 of images x1 [B, …] at a time t, where SDEdit starts (Meng et al. 2021, section 3).

    At t = 0 it is ε alone and at 1 the image alone, also on a path that does not quite begin or end so.
    """
    if t == 0:
        return noise(x1)
    return x1 if t == 1 else path.alpha(t) * noise(x1) + path.beta(t) * x1


def denoised(path: Path, v: Velocity, x: Tensor, t: Tensor) -> Tensor:
    """Return the image x1 [B, …] that a point x at time t < 1 and its velocity imply: denoising in one step."""
    return path.endpoints(x, v(x, t), t)[1]


def noised_again(path: Path, x: Tensor, t: Tensor, u: Tensor, noise: Noise) -> Tensor:
    """Return x_t given x_u for t < u: r·x_u + √q·ε, the jump back of RePaint (Lugmayr et al. 2022, section 4.2)."""
    r, q = transition(path, t, u)
    return r * x + q.sqrt() * noise(x)


def inpaint(step: Step, path: Path, known: Tensor, mask: Tensor, noise: Noise, *, resample: int = 1) -> Step:
    """Return a step after which the pixels outside of the mask are those of the known images at that time.

    RePaint (Lugmayr et al. 2022, algorithm 1): x ← m·x + (1 − m)·(α·ε + β·known), `resample` times with a jump back in
    between, so that what is new comes to agree with what is known. At t = 1 known pixels are exact.
    known: [B, C, H, W]; mask: bool, [H, W] or more, True where pixels are to be made.
    """

    def inpainted(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
        u = t + h
        for jumps_left in reversed(range(resample)):
            new = torch.where(mask, step(x, t, h), noised(path, known, u, noise))
            if jumps_left == 0 or ends_at_target(t, h):
                return new
            x = noised_again(path, new, t, u, noise)
        raise ValueError(f"resample: got {resample}, expected a number ≥ 1")

    return inpainted


def flow_edit(path: Path, old: Velocity, new: Velocity, x: Tensor, noise: Noise) -> Velocity:
    """Return the velocity that leads from images x [B, …] to what they are under another condition, without inversion.

    FlowEdit (Kulikov et al. 2024, eq. 8-10): v_new(z_e, t) − v_old(z_s, t), with the image on its way z_s = α·ε + β·x
    and the edited one z_e = z + z_s − x. z starts at x, at any time; ε is drawn anew at each evaluation.
    """

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        on_its_way = noised(path, x, t, noise)
        return new(z + on_its_way - x, t) - old(on_its_way, t)

    return velocity


# --- one image for several conditions --------------------------------------------------------------------


class View(NamedTuple):
    """An orthogonal linear map of images [B, C, H, W], and its inverse."""

    see: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


def anagram(velocities: Sequence[Velocity], views: Sequence[View]) -> Velocity:
    """Return the mean of V_i⁻¹ v_i(V_i x, t): the flow to an image that is something else in each view.

    Visual anagrams (Geng et al. 2024, eq. 4). An orthogonal V takes unit Gaussian noise to such noise.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen = [view.back(v(view.see(x), t)) for v, view in zip(velocities, views, strict=True)]
        return torch.stack(seen).mean(dim=0)

    return velocity


def permutation(order: Tensor) -> View:
    """Return the view of images whose H·W pixels, row by row, are put in another order, a permutation int64 [H·W]."""
    back = order.argsort()
    return View(lambda x: permuted(x, order), lambda x: permuted(x, back))


def permuted(x: Tensor, order: Tensor) -> Tensor:
    """Return images [B, C, H, W] whose pixel k, row by row, is the one that was at order[k]."""
    return x.flatten(-2)[..., order.to(x.device)].reshape(x.shape)


def skewed(x: Tensor, by: float) -> Tensor:
    """Return images [B, C, H, W] with column j rolled down by round(linspace(−d, d, W)_j) rows, for d = by·H."""
    height, width = x.shape[-2:]
    shift = torch.linspace(-by * height, by * height, width).round().long()
    rows = (torch.arange(height)[:, None] - shift) % height
    return x[..., rows.to(x.device), torch.arange(width, device=x.device)]


def own_inverse(see: Callable[[Tensor], Tensor]) -> View:
    """Return the view of a map that undoes itself."""
    return View(see, see)


VIEWS: dict[str, View] = {
    "identity": own_inverse(lambda x: x),
    "rotate180": own_inverse(lambda x: x.flip(-2, -1)),
    "flip": own_inverse(lambda x: x.flip(-2)),  # upside down
    "mirror": own_inverse(lambda x: x.flip(-1)),  # left to right
    "rotate90": View(lambda x: x.rot90(1, (-2, -1)), lambda x: x.rot90(-1, (-2, -1))),  # of square images
    "skew": View(lambda x: skewed(x, 0.25), lambda x: skewed(x, -0.25)),
    "negative": own_inverse(torch.neg),
}


def hybrid(far: Velocity, near: Velocity, *, sigma: float | None = None) -> Velocity:
    """Return lowpass(v_far) + highpass(v_near): the flow to an image that is one thing from afar, another from nearby.

    Factorized diffusion (Geng et al. 2024, section 3.3). sigma: as for `lowpass`.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        v_far, v_near = far(x, t), near(x, t)
        return lowpass(v_far, sigma) + (v_near - lowpass(v_near, sigma))

    return velocity


def lowpass(x: Tensor, sigma: float | None = None) -> Tensor:
    """Return images [B, C, H, W] blurred by a Gaussian of σ pixels, which reaches as far as 8σ.

    sigma: None takes 2 pixels for each 64 of the shorter side, whose kernel has 33 at 64×64.
    """
    side = min(x.shape[-2:])
    sigma = side / 32 if sigma is None else sigma
    return gaussian_blur(x, sigma, radius=min(round(8 * sigma), side - 1))


def gaussian_blur(x: Tensor, sigma: float, *, radius: int) -> Tensor:
    """Return images [B, C, H, W] under a Gaussian kernel of 2·radius + 1 pixels a side, continued by reflection."""
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    weights = torch.softmax(-((offsets / sigma) ** 2) / 2, dim=0)
    kernel = weights.expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, [radius] * 4, mode="reflect"), kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.mT, groups=x.shape[1])
