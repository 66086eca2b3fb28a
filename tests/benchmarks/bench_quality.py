"""Quality against minutes: the Fréchet distance of several pipelines while they train. Asserts nothing.

Each is a name with options of `train` behind it, and trains in a process of its own: one after the other with all of
the machine, or --jobs side by side with an equal share of the cores. With --seeds each trains once with each of them,
and the last line tells the mean and the range of their ends. Minutes are of training alone. The same command again goes
on where it was stopped.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from flowferry.configs.locations import default_data_root
from flowferry.pipelines.hardware import describe_machine
from flowferry.pipelines.training.logger import read_metrics
from flowferry.pipelines.visualization.plots import figure

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
Curve = list[tuple[float, float]]
"""(minutes of training, Fréchet distance)"""


def folder_of(told: str, output: Path) -> Path:
    return output / re.sub(r"[^\w.=-]+", " ", told)


def train(told: str, options: argparse.Namespace) -> None:
    """Train "NAME --option value …" to its end."""
    threads = max(1, (os.cpu_count() or 1) // options.jobs) if options.jobs > 1 else 0
    ours = {"minutes": options.minutes, "eval-samples": options.count, "threads": threads, "show-epochs": options.every}
    folder = folder_of(told, options.output)
    command = [sys.executable, str(LAUNCH), "train", "--pipeline", *shlex.split(told)]
    command += [f"--train.{field}={value:g}" for field, value in ours.items()]
    command += ["--data-root", str(options.data_root), "--output-dir", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        if code := subprocess.run(command, stdout=log, stderr=log).returncode:
            sys.exit(f"{told} ended with exit code {code}: see {folder / 'log'}")


def curve(folder: Path) -> Curve:
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["perf/minutes"], row["eval/frechet"]) for row in rows if "eval/frechet" in row]


def reached(points: Curve, distance: float) -> float | None:
    """Return the first measured minute at which the distance is not above `distance`; None for never."""
    return next((minutes for minutes, found in points if found <= distance), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pipelines",
        nargs="+",
        default=["fashion2mnist-published", "fashion2mnist"],
        metavar="'NAME [OPTION …]'",
        help="what is compared; minutes that reach the first one's best are told",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each")
    parser.add_argument("--count", type=int, default=2000, help="test samples of each measurement")
    parser.add_argument("--every", type=int, default=3, help="epochs between measurements")
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many train at a time, each with its share of the cores"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="of the trainings; without: that of the pipeline")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    options = parser.parse_args()
    trainings = {told: seeded(told, options.seeds) for told in options.pipelines}
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(partial(train, options=options), [one for each in trainings.values() for one in each]))
    curves = {one: curve(folder_of(one, options.output)) for each in trainings.values() for one in each}
    tell(curves, options)
    if options.seeds:
        for told, each in trainings.items():
            ends = [curves[one][-1][1] for one in each]
            print(f"{told}: {statistics.mean(ends):.3f} ({min(ends):.3f}–{max(ends):.3f}) with seeds {options.seeds}")


def seeded(told: str, seeds: list[int] | None) -> list[str]:
    """Return a pipeline and its options with each of the seeds; as it is without any."""
    return [f"{told} --seed {seed}" for seed in seeds] if seeds else [told]


def tell(curves: dict[str, Curve], options: argparse.Namespace) -> None:
    """Print each curve, and when it reaches the best of the first one; draw them into quality.png."""

    def draw(axes: Axes) -> None:
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
        axes.set(xlabel="minutes of training", ylabel="Fréchet distance", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()

    how = f"{options.jobs} at a time" if options.jobs > 1 else "one after the other"
    title = f"{options.count:,} test samples · {describe_machine()} · {how}"
    figure(draw, title).save(options.output / "quality.png")
    print(title)
    first = next(iter(curves))
    least = min(distance for _, distance in curves[first])
    for name, points in curves.items():
        minutes = reached(points, least)
        told = "never" if minutes is None else f"after {minutes:.1f} min"
        best_at, best = min(points, key=lambda point: point[1])
        print(f"{name}: best {best:.3f} at {best_at:.1f} min; the best of {first} is reached {told}")
        print("   " + ", ".join(f"{m:.1f} min {d:.3f}" for m, d in points))


if __name__ == "__main__":
    main()
