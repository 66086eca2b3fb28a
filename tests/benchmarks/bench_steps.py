"""How good results are at few evaluations of the network: a table, and a sheet of the results under one another.

    python tests/benchmarks/bench_steps.py "fashion2mnist midpoint 8 0" "fashion2mnist-fast euler 1" --sheet steps.png
    python tests/benchmarks/bench_steps.py "noise2mnist ab2 12 - 1" "noise2mnist ab2 12" --judge lenet.safetensors

Each setting is a pipeline, a solver, its steps and, if they are not the pipeline's own ("-"), the noise on the source
and guidance. All get the same samples of the test split. The distance is that of `evaluate`, the asked digit that of
its classifier. --judge FILE adds the distance by a second classifier of digits; see second_judge.py.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from second_judge import Judge
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
    judged: list[float]
    """The same by the second classifier, if it is asked."""
    recall: float
    asked: float | None
    """Share of the results that are the digit that was asked for."""
    speed: float
    """Images a second."""
    results: Tensor


def own_or(word: str) -> float | None:
    return None if word == "-" else float(word)


def spread(values: list[float]) -> str:
    """Return the mean, and the range of several."""
    span = f" ({min(values):.3f}–{max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{span}"


def measure(setting: str, args: argparse.Namespace, run: RunFolder, judge: Judge | None) -> Measured:
    """Generate and measure the results of one setting, with each of the seeds."""
    name, solver, steps, noise, guidance = [*setting.split(), "-", "-"][:5]
    chosen = {"solver": solver, "steps": int(steps), "source_noise": own_or(noise), "guidance": own_or(guidance)}
    found, seconds = [], 0.0
    for seed in args.seeds:
        options = EvaluateOptions(
            pipeline=name, data_root=args.data_root, count=args.count, seed=seed, **chosen, skip_cost=True
        )
        evaluation = Evaluation.of(run, options)
        started = time.perf_counter()
        results = evaluation.results
        seconds += time.perf_counter() - started
        found.append((evaluation, results, evaluation.reference.figures(evaluation.extracted)))
    evaluation, results, figures = found[0]
    asked = evaluation.evaluation_set.asked
    right = None if asked is None else (evaluation.extracted[1].argmax(dim=1) == asked).double().mean().item()
    distances = [figures["frechet"] for _, _, figures in found]
    speed = args.count * len(args.seeds) / seconds
    judged = [judge.distance(results.cpu()) for _, results, _ in found] if judge else []
    shown = results[:SHOWN].cpu()
    return Measured(setting, evaluation.pipeline.nfe, distances, judged, figures["recall"], right, speed, shown)


def judge_of(run: RunFolder, args: argparse.Namespace) -> Judge:
    """Return the second classifier, and print what it says of as many real digits."""
    judge = Judge(run.train[1], run.test[1], args.judge)
    floor = judge.distance(run.train[1].draw(args.count, seed=0, step=0).samples)
    print(f"judge: right on {judge.accuracy:.2%}; {floor:.3f} from as many real digits", flush=True)
    return judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help='"PIPELINE SOLVER STEPS [NOISE [GUIDANCE]]"')
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--judge", type=Path)
    args = parser.parse_args()
    use_cores(args.threads)
    keep_freed_memory()
    print(f"{args.count} samples, seeds {args.seeds}, {args.precision}; {describe_machine()}", flush=True)
    print("| pipeline, solver, steps, noise, guidance | NFE | Fréchet | by judge | recall | asked digit | images/s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    runs: dict[str, RunFolder] = {}
    judge: Judge | None = None
    rows: list[tuple[str, Tensor]] = []
    for setting in args.settings:
        name = setting.split()[0]
        if name not in runs:
            precision = run_precision(args.precision, best_device())
            runs[name] = RunFolder.load(find_weights(name), args.data_root, precision=precision)
        if args.judge and judge is None:
            judge = judge_of(runs[name], args)
        one = measure(setting, args, runs[name], judge)
        asked = "" if one.asked is None else f"{one.asked:.1%}"
        distance, judged = spread(one.frechet), spread(one.judged) if one.judged else ""
        figures = f"{distance} | {judged} | {one.recall:.2f} | {asked} | {one.speed:.0f}"
        print(f"| {setting} | {one.nfe} | {figures} |", flush=True)
        if not rows and not runs[name].config.source.is_noise:
            options = EvaluateOptions(pipeline=name, data_root=args.data_root, count=args.count)
            source = Evaluation.of(runs[name], options).evaluation_set.source.samples
            rows.append(("source", source[:SHOWN].cpu()))
        rows.append((f"{len(rows)}", one.results))
    if args.sheet:
        write_png(args.sheet, sheet(rows, "; ".join(f"{k}: {s}" for k, s in enumerate(args.settings, start=1))))


if __name__ == "__main__":
    main()
