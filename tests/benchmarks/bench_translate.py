"""What one evaluation of the network gains, from files to files; the memory of `translate` against the folder's size.

    python tests/benchmarks/bench_translate.py --data-root data --files 10000 --rounds 3
    python tests/benchmarks/bench_translate.py --one fashion2mnist-fast --data-root data --processes 2
    python tests/benchmarks/bench_translate.py --memory 1000 10000 100000

The first two export FashionMNIST's test images as PNG files and take turns in one process: A translates them by the
pipeline `--many`, B by `--one`, both from files to files as the verb does. C and D carry them by `--one` from memory to
memory, by the network alone: C as `Pipeline.translate` does, D with as many batches at a time as the verb. With
--processes, A and B run under torchrun, and their figures are those that the verb prints. The third
translates so many tiny files with a tiny network, each in a process of its own.
"""

import argparse
import re
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from flowferry import launch  # isort: skip  (it tells idle threads to sleep, which libgomp reads when torch is imported)
import torch
from PIL import Image
from torchvision.datasets import FashionMNIST

from flowferry.configs.cli import parse
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.options import TranslateOptions
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig
from flowferry.datasets.look_ahead import look_ahead
from flowferry.datasets.pixels import to_images
from flowferry.pipelines.hardware import describe_machine, networks_at_once, use_cores
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage.hub import find_weights

MANY = "fashion2mnist --guidance 1 --solver midpoint --steps 8 --source-noise 0"
ONE = "fashion2mnist --solver euler --steps 1"


def export(data_root: Path, folder: Path, count: int) -> torch.Tensor:
    """Write the first `count` test images as files in a folder for each class, and return them in [-1, 1]."""
    data = FashionMNIST(data_root, train=False)
    for index, (image, label) in enumerate(zip(data.data[:count], data.targets, strict=False)):
        file = folder / str(int(label)) / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(file)
    return to_images(data.data[:count, None])


class Turn(NamedTuple):
    """How many images a second each contender made in one turn."""

    many: float
    one: float
    bare: float
    bare_at_once: float


def speed(args: argparse.Namespace) -> None:
    """Print what the contenders made, and their ratios in each turn."""
    use_cores()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        images = export(args.data_root, root / "in", args.files)
        pipelines = {which: as_asked(given, args.precision) for which, given in contenders(args).items()}
        for which, pipeline in pipelines.items():
            print(f"{which}: NFE {pipeline.nfe}, blocks of {pipeline.block_size}")
            pipeline.translate(images[: pipeline.block_size])
        turns = [take_turns(args, pipelines["one"], images, root, str(turn)) for turn in range(args.rounds)]
    print(f"{describe_machine()}, {torch.get_num_threads()} threads, {len(images):,} files, precision {args.precision}")
    labels = ("A files/s", "B files/s", "C images/s", "D images/s")
    for label, column in zip(labels, zip(*turns, strict=True), strict=True):
        print(f"{label:11} {statistics.median(column):8.1f} ({min(column):.1f}–{max(column):.1f})")
    for label, beside in (("B/A", "many"), ("B/C", "bare"), ("B/D", "bare_at_once")):
        ratios = [turn.one / getattr(turn, beside) for turn in turns]
        print(f"{label:11} {statistics.median(ratios):8.3f} ({min(ratios):.3f}–{max(ratios):.3f})")


def contenders(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return what each contender is told on the command line."""
    return {which: ["--pipeline", *shlex.split(getattr(args, which))] for which in ("many", "one")}


def as_asked(given: list[str], precision: str) -> Pipeline:
    """Return the pipeline that `translate` runs when it is told this."""
    options = parse(TranslateOptions, [*given, "--input", ".", "--output", "."], "translate")
    pipeline = Pipeline.from_pretrained(find_weights(options.pipeline), precision=precision)
    return pipeline.using(**options.sampling)


def take_turns(args: argparse.Namespace, pipeline: Pipeline, images: torch.Tensor, root: Path, turn: str) -> Turn:
    """Return what each contender made. Nothing is deleted in between: ext4 then makes new files more slowly."""
    files = {}
    for which, given in contenders(args).items():
        out = root / f"{which}-{turn}"
        argv = ["translate", *given, "--precision", args.precision, "--input", str(root / "in"), "--output", str(out)]
        files[which] = translated_per_second(argv, len(images), args.processes)
        made = sum(1 for _ in out.rglob("*.png"))
        assert made == len(images), made
    use_cores()
    begun = time.perf_counter()
    pipeline.translate(images)
    bare = len(images) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    networks, threads = networks_at_once(pipeline.device, small=True)

    def translate(block: torch.Tensor) -> None:
        torch.set_num_threads(threads)
        pipeline.translate(block)

    for _ in look_ahead(translate, images.split(pipeline.block_size), threads=networks, depth=networks):
        pass
    return Turn(**files, bare=bare, bare_at_once=len(images) / (time.perf_counter() - begun))


def translated_per_second(argv: list[str], count: int, processes: int) -> float:
    """Return how many of `count` files a second the verb translates, in this process or in several of its own."""
    if processes == 1:
        begun = time.perf_counter()
        assert launch.main(argv) == 0
        return count / (time.perf_counter() - begun)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run([*torchrun, launch.__file__, *argv], check=True, capture_output=True, text=True)
    found = re.search(r"translated at ([\d.,]+) images/s", done.stderr)
    assert found is not None, done.stderr
    return float(found[1].replace(",", ""))


def memory(counts: list[int]) -> None:
    for count in counts:
        done = subprocess.run(
            [sys.executable, __file__, "--tiny-files", str(count)], check=True, capture_output=True, text=True
        )
        print(done.stdout, end="", flush=True)


def translate_tiny(count: int) -> None:
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
    parser.add_argument("--many", default=MANY, help="a pipeline and options of translate, of many evaluations")
    parser.add_argument("--one", default=ONE, help="the same, of one evaluation")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "auto"))
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--tiny-files", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny_files:
        translate_tiny(args.tiny_files)
    elif args.memory:
        memory(args.memory)
    else:
        speed(args)


if __name__ == "__main__":
    main()
