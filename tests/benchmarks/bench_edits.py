"""What edits of digits give, judged by the classifier of the digits: nothing is asserted.

    python tests/benchmarks/bench_edits.py inpaint anagram flowedit sdedit --data-root data
    python tests/benchmarks/bench_edits.py anagram --views rotate180 --pairs "6 9" "2 5"

inpaint: the left half of test digits is given, the right half made, as the digit's own class and as another one.
anagram: how often both readings are the digits asked for. flowedit: test digits of one class become another, beside
SDEdit to that class from several starts: the share of the asked digit, and the distance to the original, the root of
the mean squared difference of pixels in [-1, 1]. sdedit: drawn digits (`draw_digits.py`) and test digits, with their
own class asked for, with another one, and with none: the share still read as what was drawn, and the distance.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from draw_digits import drawn
from matplotlib.axes import Axes
from torch import Tensor

from flowferry.configs.locations import FEATURES, default_data_root
from flowferry.datasets.pixels import to_images
from flowferry.models.classifier import extract
from flowferry.pipelines import editing
from flowferry.pipelines.evaluation.classifier import trained_classifier
from flowferry.pipelines.flow.edits import VIEWS
from flowferry.pipelines.hardware import best_device, describe_machine, run_precision, use_cores
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage.files import write_png
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.visualization.grids import caption
from flowferry.pipelines.visualization.plots import figure


class Bench:
    """A pipeline, test digits and their judge."""

    def __init__(self, args: argparse.Namespace) -> None:
        run = RunFolder.load(
            find_weights(args.pipeline), args.data_root, precision=run_precision(args.precision, best_device())
        )
        self.args, self.config, self.test = args, run.config, run.test[1]
        how: Any = {"solver": args.solver, "steps": args.steps, "guidance": args.guidance}
        self.pipeline: Pipeline = run.pipeline.using(**how)
        self.classifier = trained_classifier(
            self.config.target,
            self.config.shape,
            num_classes=self.config.num_classes,
            data_root=args.data_root,
            folder=FEATURES,
            device=self.pipeline.device,
        ).classifier

    def reads(self, images: Tensor) -> Tensor:
        """Return the class of each image, int64 [B]."""
        return extract(self.classifier, images)[1].argmax(dim=1)

    def share(self, images: Tensor, labels: Tensor) -> float:
        """Return the share of the images that are read as their labels."""
        return (self.reads(images) == labels.to(images.device)).double().mean().item()

    def digits(self, label: int | None = None) -> tuple[Tensor, Tensor]:
        """Return test digits, of one class where it is given, and their labels."""
        count = self.args.count
        wanted = torch.arange(count) % self.config.num_classes if label is None else torch.full((count,), label)
        found = self.test.sample_by_label(wanted, seed=0, step=0)  # type: ignore[attr-defined]
        return found.samples, wanted

    def save(self, name: str, curves: dict[str, list[tuple[float, float]]], x: str, y: str, title: str) -> None:
        """Write a figure of the curves."""

        def draw(axes: Axes) -> None:
            for label, points in curves.items():
                axes.plot(*zip(*points, strict=True), "o-", markersize=4, label=label)
            axes.set(xlabel=x, ylabel=y, ylim=(0, 1.02))
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")

        write_png(self.args.figures / f"{name}.png", figure(draw, caption(self.config, title, self.pipeline.sampling)))


def distance(a: Tensor, b: Tensor) -> float:
    """Return the root of the mean squared difference."""
    return (a - b.to(a.device)).square().mean().sqrt().item()


def inpaint(bench: Bench) -> None:
    images, labels = bench.digits()
    mask = torch.zeros(images.shape[-2:], dtype=torch.bool)
    mask[:, mask.shape[1] // 2 :] = True
    print(f"inpaint: the left half of {len(images)} test digits is given; the whole is read as the asked digit")
    for resample in bench.args.resample:
        how: Any = {"resample": resample, "seed": bench.args.seed}
        shares = [
            bench.share(editing.result_of(editing.inpaint(bench.pipeline, images, mask, asked, **how)), asked)
            for asked in (labels, (labels + 3) % bench.config.num_classes)
        ]
        print(
            f"  resample {resample:2}: asked for its own class {shares[0]:.1%}, for the third after it {shares[1]:.1%}"
        )


def anagram(bench: Bench) -> None:
    count, views = bench.args.count, bench.args.views
    x0 = bench.pipeline.draw_source(count, seed=bench.args.seed)
    print(f"anagram: {count} images, read as the asked digit as they are, in the view, and both")
    for view in views:
        for pair in bench.args.pairs:
            asked = [torch.full((count,), int(label)) for label in pair.split()]
            ends = editing.result_of(
                editing.anagram(bench.pipeline, x0, asked, ["identity", view], seed=bench.args.seed)
            )
            first, second = (
                bench.reads(seen) == label.to(ends.device)
                for seen, label in zip((ends, VIEWS[view].see(ends)), asked, strict=True)
            )
            shares = [share.double().mean().item() for share in (first, second, first & second)]
            print(f"  {view} {pair}: {shares[0]:.1%}, {shares[1]:.1%}, both {shares[2]:.1%}")


def flowedit(bench: Bench) -> None:
    old, new = bench.args.edit
    images, labels = bench.digits(old)
    asked = torch.full_like(labels, new)
    print(f"flowedit: {len(images)} test digits {old} become {new}: read as {new}, distance to the original")
    curves: dict[str, list[tuple[float, float]]] = {"FlowEdit": [], "SDEdit": []}
    for start in bench.args.starts:
        how: Any = {"start": start, "seed": bench.args.seed}
        found = {
            "FlowEdit": editing.result_of(editing.flow_edit(bench.pipeline, images, labels, asked, **how)),
            "SDEdit": editing.result_of(editing.sdedit(bench.pipeline, images, asked, **how)),
        }
        for name, ends in found.items():
            curves[name].append((distance(ends, images), bench.share(ends, asked)))
        told = "; ".join(f"{name} {points[-1][1]:.1%} at {points[-1][0]:.3f}" for name, points in curves.items())
        print(f"  start {start:.1f}: {told}", flush=True)
    if bench.args.figures:
        bench.save("flowedit", curves, "distance to the original", f"share read as {new}", f"{old} → {new}, by start")


def sdedit(bench: Bench) -> None:
    strokes = to_images(torch.stack([torch.from_numpy(np.array(drawn(k))) for k in range(10)])[:, None])
    every = torch.arange(bench.args.count) % 10
    kinds = {"drawn": (strokes[every], every), "test": bench.digits()}
    print(
        f"sdedit of {bench.args.count} digits: read as what was drawn, read as what was asked, distance to the original"
    )
    curves: dict[str, list[tuple[float, float]]] = {}
    for kind, (images, labels) in kinds.items():
        for name, asked in {"none": None, "its own": labels, "the third after it": (labels + 3) % 10}.items():
            points = curves[f"{kind}, {name}"] = []
            for start in bench.args.starts:
                ends = editing.result_of(
                    editing.sdedit(bench.pipeline, images, asked, start=start, seed=bench.args.seed)
                )
                points.append((start, bench.share(ends, labels)))
                right = "" if asked is None else f", asked {bench.share(ends, asked):.1%}"
                told = f"kept {points[-1][1]:.1%}{right}, distance {distance(ends, images):.3f}"
                print(f"  {kind}, asked for {name}, start {start:.1f}: {told}", flush=True)
    if bench.args.figures:
        bench.save(
            "sdedit", curves, "start", "share read as what was drawn", "SDEdit of digits, by the class asked for"
        )


EDITS = {"inpaint": inpaint, "anagram": anagram, "flowedit": flowedit, "sdedit": sdedit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edits", nargs="+", choices=EDITS)
    parser.add_argument("--pipeline", default="noise2mnist-cfg")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--solver", help="the pipeline's own where it is not given; so are steps and guidance")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--resample", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--views", nargs="+", default=["rotate180"])
    parser.add_argument("--pairs", nargs="+", default=["6 9"])
    parser.add_argument("--edit", type=int, nargs=2, default=[3, 8], help="from which class to which")
    parser.add_argument("--starts", type=float, nargs="+", default=[k / 10 for k in range(11)])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--figures", type=Path, help="a folder for the curves")
    args = parser.parse_args()
    use_cores(args.threads)
    bench = Bench(args)
    print(f"{describe_machine()}; {args.pipeline}: {bench.pipeline.sampling}; {args.precision}; seed {args.seed}")
    for name in args.edits:
        EDITS[name](bench)


if __name__ == "__main__":
    main()
