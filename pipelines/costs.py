"""What quality costs: the Fréchet distance of each solver against its forward evaluations, and the cheapest choice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.axes import Axes
from PIL import Image
from tqdm import tqdm

from configs.parts import GaussianConfig
from configs.schema import Config, SolverConfig
from pipelines.figures import figure
from pipelines.paths import PATHS
from pipelines.solvers import SOLVERS

EVALUATIONS = (2, 4, 8, 16, 32)  # of the velocity per sample, that each solver is tried with
TOLERANCE = 1.05  # of the best distance, that is as good


class Cost(NamedTuple):
    """One way to run a pipeline."""

    solver: str
    steps: int
    nfe: int
    """Forward evaluations of the network per sample; guidance doubles them."""
    frechet: float


def ladder(config: Config) -> list[SolverConfig]:
    """The solvers and steps to try: each that fits the path, at each number of evaluations that it can spend."""
    levels = PATHS[config.path].levels
    if levels == 1:
        return [replace(config.solver, name="euler", steps=1)]
    tried: list[SolverConfig] = []
    for name, solver in SOLVERS.items():
        if name == "ancestral" and not (levels and config.source == GaussianConfig()):
            continue  # it is diffusion's, and starts from noise
        budgets = (*EVALUATIONS, levels) if levels else EVALUATIONS
        steps = sorted({budget // solver.evaluations for budget in budgets} - {0})
        tried += [replace(config.solver, name=name, steps=n) for n in steps if not levels or n <= levels]  # type: ignore[arg-type]
    return tried


def measured(config: Config, frechet: Callable[[SolverConfig], tuple[int, float]], *, shown: bool = True) -> list[Cost]:
    """frechet(solver) -> (NFE, distance), for each of the ladder."""
    tried = ladder(config)
    return [
        Cost(solver.name, solver.steps, *frechet(solver))
        for solver in tqdm(tried, desc="cost curve", unit="setting", dynamic_ncols=True, leave=False, disable=not shown)
    ]


def cheapest(costs: Sequence[Cost]) -> Cost:
    """The fewest evaluations whose distance is within TOLERANCE of the best; of several as cheap, the best."""
    best = min(cost.frechet for cost in costs)
    return min((c for c in costs if c.frechet <= TOLERANCE * best), key=lambda c: (c.nfe, c.frechet))


def cost_figure(costs: Sequence[Cost], chosen: Cost, floor: float, title: str) -> Image.Image:
    """A line for each solver; both axes logarithmic."""

    def draw(axes: Axes) -> None:
        for name in dict.fromkeys(cost.solver for cost in costs):
            points = [(cost.nfe, cost.frechet) for cost in costs if cost.solver == name]
            axes.plot(*zip(*points, strict=True), "o-", label=name, markersize=4)
        axes.plot(chosen.nfe, chosen.frechet, "o", color="black", markersize=11, fillstyle="none", label="cheapest")
        axes.axhline(floor, color="grey", linestyle=":", label="real against real")
        axes.set(xscale="log", yscale="log", xlabel="forward evaluations per sample", ylabel="Fréchet distance")
        axes.set_xticks(sorted({cost.nfe for cost in costs}), [str(n) for n in sorted({cost.nfe for cost in costs})])
        axes.minorticks_off()
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")

    return figure(draw, title)
