"""Figures drawn with matplotlib, returned as Pillow images like every other picture."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from flowferry.configs.schema import Config
from flowferry.pipelines.visualization.grids import caption

ERROR = {"squared": "mean squared error", "pseudo-huber": "pseudo-Huber error"}
OF = {
    "velocity": "of the velocity",
    "source": "of the noise ε",
    "target": "of the clean image",
    "v-prediction": "of β·x0 − α·x1",
}


def figure(
    draw: Callable[..., None], title: str, *, panels: int = 1, size: tuple[float, float] = (7, 3.6)
) -> Image.Image:
    """Return a figure with a title, in which draw(*axes) fills the axes of `panels` side by side.

    size: width and height in inches, at 110 dots per inch.
    """
    made = Figure(figsize=size, dpi=110, layout="constrained")
    draw(*np.ravel(made.subplots(1, panels)))
    made.suptitle(title, fontsize="small", wrap=True)
    canvas = FigureCanvasAgg(made)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def loss_curve(config: Config, rows: Sequence[dict[str, float]], when: str) -> Image.Image:
    """Plot the training loss of each step, its running mean, and the held-out loss where it was measured."""
    steps = np.array([row["step"] for row in rows if "train/loss" in row])
    losses = np.array([row["train/loss"] for row in rows if "train/loss" in row])
    held_out = [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]
    window = max(1, len(losses) // 100)

    def draw(axes: Axes) -> None:
        if len(losses):  # the log may be lost
            axes.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.6, label="train/loss")
            mean = np.convolve(losses, np.ones(window) / window, mode="valid")
            axes.plot(steps[window - 1 :], mean, color="tab:blue", label=f"running mean, {window} wide")
            low, high = np.percentile(losses, [0, 98])
            if high > 0:  # it is not where source and target are the same synthetic images
                axes.set(ylim=(0.9 * low, 1.1 * high))
        if held_out:
            x, y = zip(*held_out, strict=True)
            axes.plot(x, y, "o-", color="tab:orange", markersize=3, label="eval/loss (averaged weights)")
        axes.set(xlabel="step", ylabel=f"{ERROR[config.train.loss]} {OF[config.prediction]}")
        axes.grid(alpha=0.3)
        axes.legend()

    return figure(draw, caption(config, when))
