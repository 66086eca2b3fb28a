"""Pictures of what happens in the plane: densities, trajectories, and the variance along a path."""

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from datasets.keyed import key
from datasets.toys import Toy
from pipelines.figures import figure
from pipelines.paths import PATHS
from pipelines.pipeline import Pipeline
from pipelines.sheets import FRAMES, caption, evenly, how

MANY = 20_000  # points of a density and of a variance
COMPARED = ("linear", "cosine")


def pictures(pipeline: Pipeline, source: Toy, target: Toy, when: str) -> dict[str, Image.Image]:
    """By name: densities of source, result and target; trajectories; the variance against t."""
    points = along(pipeline, source, MANY)
    title = caption(pipeline.config, when, f"path {pipeline.config.path}", how(pipeline))
    real = target.draw(MANY, seed=key(pipeline.config.seed, "plane"), step=0).samples
    return {
        "densities": densities(points, real, title),
        "trajectories": trajectories(points[:, :300], title),
        "variance": variances(points, source, target, title, path=pipeline.config.path),
    }


def frames(pipeline: Pipeline, source: Toy, target: Toy) -> list[Image.Image]:
    """The points on their way from source to target."""
    points = along(pipeline, source, 2000)
    limits = bounds(points)

    def frame(x: Tensor, t: float) -> Image.Image:
        def draw(axes: Axes) -> None:
            axes.scatter(x[:, 0], x[:, 1], s=2, linewidths=0)
            axes.set(**limits, aspect="equal")

        return figure(draw, caption(pipeline.config, f"t = {t:.2f}"), size=(3.6, 3.8))

    return [frame(x, t) for x, t in zip(*evenly(points, FRAMES, pipeline.config), strict=True)]


def along(pipeline: Pipeline, source: Toy, count: int) -> Tensor:
    """[steps + 1, count, 2] on the CPU, from points that depend on the configuration's seed alone."""
    x0 = source.draw(count, seed=key(pipeline.config.seed, "sheet"), step=0).samples
    return torch.stack(list(pipeline.trajectory(x0, seed=pipeline.config.seed))).cpu()


def bounds(points: Tensor) -> dict[str, tuple[float, float]]:
    """A square that holds nearly all points."""
    low, high = (np.quantile(points.flatten(0, 1).numpy(), q, axis=0) for q in (0.001, 0.999))
    middle, half = (low + high) / 2, 0.55 * (high - low).max()
    return {f"{axis}lim": (middle[i] - half, middle[i] + half) for i, axis in enumerate("xy")}


def densities(points: Tensor, real: Tensor, title: str) -> Image.Image:
    """Histograms of the source, of what it became, and of the target."""
    limits = bounds(torch.cat([points[[0, -1]], real[None].cpu()]))

    def draw(*panels: Axes) -> None:
        for axes, name, x in zip(
            panels, ("source", "result", "target"), (points[0], points[-1], real.cpu()), strict=True
        ):
            axes.hist2d(x[:, 0].numpy(), x[:, 1].numpy(), bins=100, range=[limits["xlim"], limits["ylim"]])
            axes.set(title=name, aspect="equal")

    return figure(draw, title, panels=3, size=(10, 3.8))


def trajectories(points: Tensor, title: str) -> Image.Image:
    """A line for each point, from its start (black) to its end (orange)."""

    def draw(axes: Axes) -> None:
        axes.plot(points[..., 0], points[..., 1], color="tab:blue", alpha=0.15, linewidth=0.7)
        for x, colour, name in ((points[0], "black", "t = 0"), (points[-1], "tab:orange", "t = 1")):
            axes.scatter(x[:, 0], x[:, 1], s=6, color=colour, label=name, zorder=3, linewidths=0)
        axes.set(**bounds(points), aspect="equal")
        axes.legend(loc="upper left")

    return figure(draw, title, size=(6, 6.2))


def variances(points: Tensor, source: Toy, target: Toy, title: str, *, path: str) -> Image.Image:
    """Variance of a coordinate of x_t against t: measured on pairs on either path, in closed form, and as sampled."""
    x0 = source.draw(MANY, seed=key(0, "variance", "source"), step=0).samples
    x1 = target.draw(MANY, seed=key(0, "variance", "target"), step=0).samples
    t = torch.linspace(0, 1, 41)

    def draw(axes: Axes) -> None:
        for name, colour in zip(COMPARED, ("tab:blue", "tab:orange"), strict=True):
            measured = [spread(PATHS[name].interpolate(x0, x1, time[None])) for time in t]
            axes.plot(t, measured, "o", color=colour, markersize=3, label=f"{name}: measured on {MANY:,} pairs")
            exact = closed_form(name, source, target, t)
            axes.plot(t, exact, color=colour, label=f"{name}: α²·{source.variance:.3g} + β²·{target.variance:.3g}")
        axes.plot(
            torch.linspace(0, 1, len(points)),
            [spread(x) for x in points],
            "k:",
            label=f"what the network (path {path}) carries there",
        )
        axes.set(xlabel="t", ylabel="variance of a coordinate of x_t", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return figure(draw, title, size=(7, 4))


def spread(x: Tensor) -> float:
    """The variance of a coordinate, as the mean over both."""
    return x.var(dim=0).mean().item()


def closed_form(path: str, source: Toy, target: Toy, t: Tensor) -> Tensor:
    """Var x_t = α²·Var x0 + β²·Var x1 where x0 and x1 are independent: [T]."""
    return PATHS[path].alpha(t) ** 2 * source.variance + PATHS[path].beta(t) ** 2 * target.variance
