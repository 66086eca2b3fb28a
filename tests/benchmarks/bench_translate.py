"""`translate` of a folder against the bare model on the same images in memory; its memory against the folder's size.

    python tests/benchmarks/bench_translate.py --data-root data --files 10000 --rounds 1
    python tests/benchmarks/bench_translate.py --memory 1000 10000 100000

The first exports FashionMNIST's test images as PNG files and then takes turns: A carries them from memory to memory, B
from files to files. The second translates so many tiny files with a tiny network, each in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision.datasets import FashionMNIST

from flowferry import launch
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig
from flowferry.datasets.pixels import to_images
from flowferry.pipelines.hardware import describe_machine, use_cores
from flowferry.pipelines.pipeline import Pipeline


def export(data_root: Path, folder: Path, count: int) -> torch.Tensor:
    """Write the first `count` test images as files in a folder for each class, and return them in [-1, 1]."""
    data = FashionMNIST(data_root, train=False)
    for index, (image, label) in enumerate(zip(data.data[:count], data.targets, strict=False)):
        file = folder / str(int(label)) / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(file)
    return to_images(data.data[:count, None])


def speed(args: argparse.Namespace) -> None:
    use_cores()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = export(args.data_root, root / "in", args.files)
        pipeline = Pipeline.from_pretrained(args.pipeline).using(steps=args.steps)
        pipeline.translate(images[: pipeline.block_size])
        found: list[tuple[float, float]] = []
        for turn in range(args.rounds):
            begun = time.perf_counter()
            pipeline.translate(images)
            bare = len(images) / (time.perf_counter() - begun)
            argv = ["translate", "--pipeline", args.pipeline, "--input", root / "in", "--output", root / str(turn)]
            begun = time.perf_counter()
            code = launch.main([*map(str, argv), *(["--steps", str(args.steps)] if args.steps else [])])
            files = len(images) / (time.perf_counter() - begun)
            made = sum(1 for _ in (root / str(turn)).rglob("*.png"))
            assert (code, made) == (0, len(images)), (code, made)
            found.append((bare, files))
        blocks = f"blocks of {pipeline.block_size}"
        print(f"{describe_machine()}; {args.pipeline}, NFE {pipeline.nfe}, {blocks}, {len(images)} files")
        for column, told in zip(zip(*found, strict=True), ("A images/s", "B files/s"), strict=True):
            print(f"{told:12} {statistics.median(column):8.1f} ({min(column):.1f}–{max(column):.1f})")
        ratios = [files / bare for bare, files in found]
        print(f"{'B/A':12} {statistics.median(ratios):8.3f} ({min(ratios):.3f}–{max(ratios):.3f})")


def memory(counts: list[int]) -> None:
    for count in counts:
        done = subprocess.run(
            [sys.executable, __file__, "--one", str(count)], check=True, capture_output=True, text=True
        )
        print(done.stdout, end="", flush=True)


def one(count: int) -> None:
    """Print the peak memory of translating `count` files of 4 × 4 pixels, over what it was before the first."""
    config = PIPELINES["fashion2mnist-published"]
    config = type(config)(
        **{**vars(config), "model": PracticalUNetConfig(width=1), "solver": SolverConfig(num_steps=1)}
    )
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        Pipeline(config).save_pretrained(root / "weights")
        for index in range(count):
            file = root / "in" / str(index // 10_000) / f"{index:06d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), index % 256).save(file, compress_level=0)
        argv = f"translate --pipeline {root}/weights --input {root}/in --output {root}/out".split()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for told in ("first run", "second run, all done"):
            begun = time.perf_counter()
            assert launch.main(argv) == 0
            seconds = time.perf_counter() - begun
            peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"{count:7,} files, {told:20}: {seconds:6.1f} s, {count / seconds:7.0f} files/s, {peak:6.0f} MB more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="runs/fashion2mnist-published")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
    elif args.memory:
        memory(args.memory)
    else:
        speed(args)


if __name__ == "__main__":
    main()
