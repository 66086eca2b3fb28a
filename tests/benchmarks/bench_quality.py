"""Quality against minutes: the Fréchet distance of several pipelines while they train. Asserts nothing.

Each trains in a process of its own, all of the machine for one after the other, or, with --at-once, all of them
side by side with an equal share of the cores. Minutes are of training alone.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # ahead of any other `datasets`

from matplotlib.axes import Axes

from configs.cli import data_root
from configs.presets import PIPELINES
from pipelines.figures import figure
from pipelines.machine import described
from pipelines.record import read_metrics

LAUNCH = Path(__file__).resolve().parents[2] / "launch.py"
Curve = list[tuple[float, float]]
"""(minutes of training, Fréchet distance)"""


def training(name: str, options: argparse.Namespace, threads: int) -> subprocess.Popen[bytes]:
    train = {"minutes": options.minutes, "eval-samples": options.count, "threads": threads}
    train["show-epochs"] = options.every
    told = [f"--train.{field}={value:g}" for field, value in train.items()]
    command = [sys.executable, str(LAUNCH), "train", "--pipeline", name, *told]
    folder: Path = options.output / name
    command += ["--data-root", str(options.data_root), "--output-dir", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def finished(process: subprocess.Popen[bytes], name: str) -> None:
    if process.wait():
        sys.exit(f"{name} ended with exit code {process.returncode}: see {name}/log in the output folder")


def curve(folder: Path) -> Curve:
    rows = read_metrics(folder / "metrics.jsonl")
    return [(row["perf/minutes"], row["eval/frechet"]) for row in rows if "eval/frechet" in row]


def reached(points: Curve, distance: float) -> float | None:
    """The first measured minute at which the distance is not above `distance`."""
    return next((minutes for minutes, found in points if found <= distance), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pipelines", nargs="+", default=["fashion2mnist-published", "fashion2mnist"], choices=PIPELINES
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="of training, each")
    parser.add_argument("--count", type=int, default=2000, help="test samples of each measurement")
    parser.add_argument("--every", type=int, default=3, help="epochs between measurements")
    parser.add_argument("--at-once", action="store_true", help="side by side, each with its share of the cores")
    parser.add_argument("--output", type=Path, default=Path("runs/quality"))
    parser.add_argument("--data-root", type=Path, default=data_root())
    options = parser.parse_args()
    names = options.pipelines
    if options.at_once:
        share = max(1, (os.cpu_count() or 1) // len(names))
        for name, process in [(name, training(name, options, share)) for name in names]:
            finished(process, name)
    else:
        for name in names:
            finished(training(name, options, 0), name)
    how = f"at once, {share} threads each" if options.at_once else "one after the other"
    tell({name: curve(options.output / name) for name in names}, how, options)


def tell(curves: dict[str, Curve], how: str, options: argparse.Namespace) -> None:
    """Prints each curve, and when it reaches the best of the first one; draws them into quality.png."""

    def draw(axes: Axes) -> None:
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=name)
        axes.set(xlabel="minutes of training", ylabel="Fréchet distance", yscale="log")
        axes.grid(alpha=0.3, which="both")
        axes.legend()

    title = f"{options.count:,} test samples · {described()} · {how}"
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
