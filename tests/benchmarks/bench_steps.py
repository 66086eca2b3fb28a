"""How good results are at few evaluations of the network: a table, and a sheet of the results under one another.

    python tests/benchmarks/bench_steps.py "fashion2mnist midpoint 8 0" "fashion2mnist-fast euler 1" --sheet steps.png

Each setting is a pipeline, a solver, its steps and, if it is not the pipeline's own, the noise on the source. All get
the same samples of the test split. The distance is that of `evaluate`, the asked digit that of its classifier.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from flowferry.configs.locations import default_data_root
from flowferry.configs.options import EvaluateOptions
from flowferry.pipelines.evaluate import Evaluation
from flowferry.pipelines.hardware import best_device, describe_machine, keep_freed_memory, run_precision, use_cores
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage.files import write_png
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.visualization.grids import sheet

SHOWN = 32  # results in a row of the sheet


class Measured(NamedTuple):
    """What one setting gave."""

    setting: str
    nfe: int
    frechet: list[float]
    """One a seed."""
    recall: float
    asked: float | None
    """Share of the results that are the digit that was asked for."""
    speed: float
    """Images a second."""
    results: Tensor


def measure(setting: str, args: argparse.Namespace, runs: dict[str, RunFolder]) -> Measured:
    """Generate and measure the results of one setting, with each of the seeds."""
    name, solver, steps, *noise = setting.split()
    if name not in runs:
        precision = run_precision(args.precision, best_device())
        runs[name] = RunFolder.load(find_weights(name), args.data_root, precision=precision)
    chosen = {"solver": solver, "steps": int(steps), "source_noise": float(noise[0]) if noise else None}
    found, seconds = [], 0.0
    for seed in args.seeds:
        options = EvaluateOptions(
            pipeline=name, data_root=args.data_root, count=args.count, seed=seed, **chosen, skip_cost=True
        )
        evaluation = Evaluation.of(runs[name], options)
        started = time.perf_counter()
        results = evaluation.results
        seconds += time.perf_counter() - started
        found.append((evaluation, results, evaluation.reference.figures(evaluation.extracted)))
    evaluation, results, figures = found[0]
    asked = evaluation.evaluation_set.asked
    right = None if asked is None else (evaluation.extracted[1].argmax(dim=1) == asked).double().mean().item()
    distances = [figures["frechet"] for _, _, figures in found]
    speed = args.count * len(args.seeds) / seconds
    return Measured(setting, evaluation.pipeline.nfe, distances, figures["recall"], right, speed, results[:SHOWN].cpu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help='"PIPELINE SOLVER STEPS [NOISE]"')
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    use_cores(args.threads)
    keep_freed_memory()
    print(f"{args.count} samples, seeds {args.seeds}, {args.precision}; {describe_machine()}", flush=True)
    print("| pipeline, solver, steps, noise | NFE | Fréchet | recall | asked digit | images/s |")
    print("|---|---|---|---|---|---|", flush=True)
    runs: dict[str, RunFolder] = {}
    rows: list[tuple[str, Tensor]] = []
    for setting in args.settings:
        one = measure(setting, args, runs)
        spread = f" ({min(one.frechet):.3f}–{max(one.frechet):.3f})" if len(one.frechet) > 1 else ""
        asked = "" if one.asked is None else f"{one.asked:.1%}"
        distance = f"{statistics.mean(one.frechet):.3f}{spread}"
        print(f"| {setting} | {one.nfe} | {distance} | {one.recall:.2f} | {asked} | {one.speed:.0f} |", flush=True)
        if not rows and not runs[setting.split()[0]].config.source.is_noise:
            options = EvaluateOptions(pipeline=setting.split()[0], data_root=args.data_root, count=args.count)
            source = Evaluation.of(runs[setting.split()[0]], options).evaluation_set.source.samples
            rows.append(("source", source[:SHOWN].cpu()))
        rows.append((f"{len(rows)}", one.results))
    if args.sheet:
        write_png(args.sheet, sheet(rows, "; ".join(f"{k}: {s}" for k, s in enumerate(args.settings, start=1))))


if __name__ == "__main__":
    main()
