"""Measure each solver's Fréchet distance against its forward evaluations, and choose the cheapest good one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.axes import Axes
from PIL import Image
from tqdm import tqdm

from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.pipelines.flow.objectives import OBJECTIVES
from flowferry.pipelines.flow.paths import PATHS
from flowferry.pipelines.flow.solvers import SOLVERS
from flowferry.pipelines.visualization.plots import figure

NFE = (1, 2, 4, 6, 8, 16, 32)  # forward evaluations per sample to try with each solver
FEW = (1, 2, 4, 8)  # steps to try with what was distilled for one or two
TOLERANCE = 1.05  # distances up to this factor of the best count as good


class Cost(NamedTuple):
    """One way to run a pipeline, what it costs, and how near its results come to real samples."""

    solver: str
    steps: int
    nfe: int
    """Forward evaluations of the network per sample; guidance doubles them."""
    frechet: float


def ladder(config: Config) -> list[SolverConfig]:
    """Return the settings to try: each solver that fits the pipeline, with the steps that each of the NFE pays for."""
    levels, objective = PATHS[config.path].levels, OBJECTIVES[config.objective]
    if objective.max_steps is not None:
        return [replace(config.solver, name="euler", num_steps=objective.max_steps)]
    if config.has_teacher:
        return [replace(config.solver, name="euler", num_steps=n) for n in FEW]
    ladder: list[SolverConfig] = []
    for name, solver in SOLVERS.items():
        choice = replace(config.solver, name=name, stride=None)  # type: ignore[arg-type]
        if solver.has_ends and not (levels and config.starts_from_unit_noise):
            continue  # its steps are those of diffusion from unit noise
        if solver.two_times and not objective.two_times:
            continue
        budgets = (*NFE, levels) if levels else NFE
        steps = sorted({solver.steps_within(budget) for budget in budgets} - {0})
        ladder += [replace(choice, num_steps=n) for n in steps if not levels or n <= levels]
    return ladder


def cost_curve(config: Config, frechet: Callable[[SolverConfig], tuple[int, float]]) -> list[Cost]:
    """Call frechet(solver), which returns (NFE, Fréchet distance), for each setting of the ladder."""
    bar = tqdm(ladder(config), desc="cost curve", unit="setting", dynamic_ncols=True, leave=False)
    return [Cost(solver.name, solver.num_steps, *frechet(solver)) for solver in bar]


def cheapest(costs: Sequence[Cost]) -> Cost:
    """Return the setting with the fewest evaluations among those within TOLERANCE of the best; in a tie, the better."""
    best = min(cost.frechet for cost in costs)
    return min((c for c in costs if c.frechet <= TOLERANCE * best), key=lambda c: (c.nfe, c.frechet))


def cost_figure(costs: Sequence[Cost], chosen: Cost, floor: float, title: str) -> Image.Image:
    """Return the figure of distance against evaluations: a line for each solver, both axes logarithmic.

    floor: the distance of real samples, as a dotted line.
    """

    def draw(axes: Axes) -> None:
        for name in dict.fromkeys(cost.solver for cost in costs):
            points = [(cost.nfe, cost.frechet) for cost in costs if cost.solver == name]
            axes.plot(*zip(*points, strict=True), "o-", label=name, markersize=4)
        axes.plot(chosen.nfe, chosen.frechet, "o", color="black", markersize=11, fillstyle="none", label="cheapest")
        axes.axhline(floor, color="gray", linestyle=":", label="real against real")
        axes.set(xscale="log", yscale="log", xlabel="forward evaluations per sample", ylabel="Fréchet distance")
        axes.set_xticks(sorted({cost.nfe for cost in costs}), [str(n) for n in sorted({cost.nfe for cost in costs})])
        axes.minorticks_off()
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")

    return figure(draw, title)
