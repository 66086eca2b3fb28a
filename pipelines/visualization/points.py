"""Pictures of pipelines in the plane: densities, trajectories, and the variance along a path."""

import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from flowferry.datasets.rng import derive_seed
from flowferry.datasets.toy import Toy
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.visualization.grids import FRAMES, caption, evenly
from flowferry.pipelines.visualization.plots import figure

MANY = 20_000  # points of a density and of a variance
COMPARED = ("linear", "cosine")


def pictures(pipeline: Pipeline, source: Toy, target: Toy, when: str) -> dict[str, Image.Image]:
    """Return pictures by name: densities of source, result and target; trajectories; the variance against t."""
    points = along(pipeline, source, MANY)
    title = caption(pipeline.config, when, f"path {pipeline.config.path}", pipeline.sampling)
    real = target.draw(MANY, seed=derive_seed(pipeline.config.seed, "plane"), step=0).samples
    return {
        "densities": densities(points, real, title),
        "trajectories": trajectories(points[:, :300], title),
        "variance": variances(points, source, target, title, path=pipeline.config.path, grid=pipeline.grid()),
    }


def frames(pipeline: Pipeline, source: Toy, target: Toy) -> list[Image.Image]:
    """Return the frames of a GIF in which points move from source to target."""
    points = along(pipeline, source, 2000)
    limits = bounds(points)

    def frame(x: Tensor, t: float) -> Image.Image:
        def draw(axes: Axes) -> None:
            axes.scatter(x[:, 0], x[:, 1], s=2, linewidths=0)
            axes.set(**limits, aspect="equal")

        return figure(draw, caption(pipeline.config, f"t = {t:.2f}"), size=(3.6, 3.8))

    return [frame(x, t) for x, t in zip(*evenly(points, FRAMES, pipeline.grid()), strict=True)]


def along(pipeline: Pipeline, source: Toy, count: int) -> Tensor:
    """Return points [num_steps + 1, count, 2] on the CPU, from starts that depend on the configuration's seed alone."""
    x0 = source.draw(count, seed=derive_seed(pipeline.config.seed, "sheet"), step=0).samples
    return torch.stack(list(pipeline.trajectory(x0, seed=pipeline.config.seed))).cpu()


def bounds(points: Tensor) -> dict[str, tuple[float, float]]:
    """Return the limits of a square that holds nearly all points [T, N, 2]."""
    low, high = (np.quantile(points.flatten(0, 1).numpy(), q, axis=0) for q in (0.001, 0.999))
    middle, half = (low + high) / 2, 0.55 * (high - low).max()
    return {f"{axis}lim": (middle[i] - half, middle[i] + half) for i, axis in enumerate("xy")}


def densities(points: Tensor, real: Tensor, title: str) -> Image.Image:
    """Draw histograms of the source, of the result and of the target.

    points: a trajectory [num_steps + 1, count, 2]; real: target samples [N, 2].
    """
    limits = bounds(torch.cat([points[[0, -1]], real[None].cpu()]))

    def draw(*panels: Axes) -> None:
        for axes, name, x in zip(
            panels, ("source", "result", "target"), (points[0], points[-1], real.cpu()), strict=True
        ):
            axes.hist2d(x[:, 0].numpy(), x[:, 1].numpy(), bins=100, range=[limits["xlim"], limits["ylim"]])
            axes.set(title=name, aspect="equal")

    return figure(draw, title, panels=3, size=(10, 3.8))


def trajectories(points: Tensor, title: str) -> Image.Image:
    """Draw a line for each of the points [num_steps + 1, count, 2], from its start (black) to its end (orange)."""

    def draw(axes: Axes) -> None:
        axes.plot(points[..., 0], points[..., 1], color="tab:blue", alpha=0.15, linewidth=0.7)
        for x, color, name in ((points[0], "black", "t = 0"), (points[-1], "tab:orange", "t = 1")):
            axes.scatter(x[:, 0], x[:, 1], s=6, color=color, label=name, zorder=3, linewidths=0)
        axes.set(**bounds(points), aspect="equal")
        axes.legend(loc="upper left")

    return figure(draw, title, size=(6, 6.2))


def variances(points: Tensor, source: Toy, target: Toy, title: str, *, path: str, grid: Tensor) -> Image.Image:
    """Plot the variance of a coordinate of x_t against t.

    It is measured on independent pairs on each of the COMPARED paths, computed in closed form, and measured on the
    pipeline's own trajectory `points` [N + 1, count, 2] at the times `grid`.
    """
    x0 = source.draw(MANY, seed=derive_seed(0, "variance", "source"), step=0).samples
    x1 = target.draw(MANY, seed=derive_seed(0, "variance", "target"), step=0).samples
    t = torch.linspace(0, 1, 41)

    def draw(axes: Axes) -> None:
        for name, color in zip(COMPARED, ("tab:blue", "tab:orange"), strict=True):
            measured = [spread(PATHS[name].interpolate(x0, x1, time[None])) for time in t]
            axes.plot(t, measured, "o", color=color, markersize=3, label=f"{name}: measured on {MANY:,} pairs")
            exact = closed_form(name, source, target, t)
            axes.plot(t, exact, color=color, label=f"{name}: α²·{source.variance:.3g} + β²·{target.variance:.3g}")
        axes.plot(
            grid,
            [spread(x) for x in points],
            "k:",
            label=f"the points that the network (path {path}) carries",
        )
        axes.set(xlabel="t", ylabel="variance of a coordinate of x_t", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return figure(draw, title, size=(7, 4))


def spread(x: Tensor) -> float:
    """Return the variance of a coordinate of x [N, 2], as the mean over both."""
    return x.var(dim=0).mean().item()


def closed_form(path: str, source: Toy, target: Toy, t: Tensor) -> Tensor:
    """Return Var x_t = α²·Var x0 + β²·Var x1 at times t [T], where x0 and x1 are independent: [T]."""
    return PATHS[path].alpha(t) ** 2 * source.variance + PATHS[path].beta(t) ** 2 * target.variance
