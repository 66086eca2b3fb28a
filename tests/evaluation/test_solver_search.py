"""The ladder of solvers that `evaluate` tries, and the cheapest good one."""

from collections.abc import Callable
from dataclasses import replace

from flowferry.configs.schema import Config
from flowferry.pipelines.evaluation.solver_search import Cost, cheapest, ladder


def test_the_cheapest_is_within_5_percent_of_the_best_and_the_best_of_its_price() -> None:
    costs = [
        Cost("euler", 2, 2, 2.0),
        Cost("euler", 4, 4, 1.051),
        Cost("euler", 8, 8, 1.049),
        Cost("heun", 4, 8, 1.02),
        Cost("euler", 32, 32, 1.0),
    ]
    assert cheapest(costs) == costs[3]
    assert cheapest(costs[:1]) == costs[0]


def test_the_ladder_spends_each_budget_with_each_solver(tiny: Callable[..., Config]) -> None:
    tried = {(solver.name, solver.num_steps) for solver in ladder(tiny("fashion2mnist"))}
    assert {("euler", 32), ("midpoint", 16), ("heun", 16), ("rk4", 8), ("euler", 2)} <= tried
    assert not any(name in ("ancestral", "ddim") or steps < 1 for name, steps in tried)
    assert not any(name == "map" for name, _ in tried)  # which only networks of two times answer
    tried = {(solver.name, solver.num_steps) for solver in ladder(tiny("fashion2mnist-map"))}
    assert {("map", 1), ("map", 2), ("map", 4), ("map", 8), ("euler", 8), ("ab2", 8)} <= tried
    ddpm = [(solver.name, solver.num_steps) for solver in ladder(tiny("ddpm-mnist"))]
    assert {("ancestral", 300), ("ddim", 8)} <= set(ddpm) and max(steps for _, steps in ddpm) == 300
    chosen = tiny("ddpm-mnist", solver=replace(tiny("ddpm-mnist").solver, name="heun", num_steps=4))
    assert [(solver.name, solver.num_steps) for solver in ladder(chosen)] == ddpm  # whatever was kept before
    assert [(solver.name, solver.num_steps) for solver in ladder(tiny("denoise-mnist"))] == [("euler", 1)]
    student = [(solver.name, solver.num_steps) for solver in ladder(tiny("fashion2mnist-fast"))]
    assert student == [("euler", 1), ("euler", 2), ("euler", 4), ("euler", 8)]
