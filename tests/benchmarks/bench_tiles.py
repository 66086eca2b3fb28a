"""Tiles against one pass: their seams, how near they come, and the memory of a large picture.

    python tests/benchmarks/bench_tiles.py --pipeline runs/paired --sources A --across 12 --tiles 512 256

A mosaic of held-out pictures of the folder A goes through the pipeline at once and in tiles, cut so that the borders of
tiles lead through pictures. A seam is the mean gradient across the borders of tiles over that elsewhere, divided by the
same ratio in one pass.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from torch import Tensor

from flowferry.datasets.held_out import hold_out
from flowferry.datasets.image_io import load_image
from flowferry.pipelines.flow.tiling import windows
from flowferry.pipelines.hardware import describe_machine, use_cores
from flowferry.pipelines.pipeline import Pipeline


def mosaic(folder: Path, shape: tuple[int, ...], across: int) -> Tensor:
    """Return held-out pictures in rows, repeated as often as it takes, without half a picture at each side."""
    files = {file.stem: file for file in sorted(folder.iterdir())}
    held_out = sorted(hold_out(files.keys()))
    pictures = [load_image(files[stem], shape) for stem in (held_out * across**2)[: across**2]]  # type: ignore[arg-type]
    rows = [torch.cat(pictures[start : start + across], dim=2) for start in range(0, across**2, across)]
    down, right = shape[1] // 2, shape[2] // 2
    return torch.cat(rows, dim=1)[None, :, down:-down, right:-right].contiguous()


def ratio(image: Tensor, tile: int, overlap: int) -> float:
    """Return the mean gradient across the borders of tiles over that elsewhere, of both directions."""
    ratios = []
    for dim in (2, 3):
        gradients = image.diff(dim=dim).abs().mean(dim=(0, 1, 5 - dim))
        ends = {end for part, _ in windows(image.shape[dim], tile, overlap) for end in (part.start, part.stop)}
        borders = torch.tensor(sorted(ends - {0, image.shape[dim]})) - 1
        inside = torch.ones(len(gradients), dtype=torch.bool)
        inside[borders] = False
        ratios.append(gradients[borders].mean() / gradients[inside].mean())
    return float(sum(ratios) / 2)


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="runs/paired")
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--across", type=int, default=12)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 256])
    parser.add_argument("--memory", action="store_true", help="measure the memory of the first tiles alone")
    args = parser.parse_args()
    use_cores()
    pipeline = Pipeline.from_pretrained(args.pipeline)
    x = mosaic(args.sources, pipeline.config.shape, args.across)
    side = max(x.shape[-2:])
    pipeline.translate(x[..., :64, :64], steps=1)
    print(f"{describe_machine()}; {args.pipeline}, {tuple(x.shape)}; {peak():.0f} MB before the first picture")
    if args.memory:
        pipeline.translate(x, steps=2, tile=args.tiles[0])
        print(f"{peak():.0f} MB after it, in tiles of {args.tiles[0]}")
        return
    stride = pipeline.stride or 1
    whole = pipeline.translate(x, tile=side + -side % stride)
    for tile in args.tiles:
        begun = time.perf_counter()
        result = pipeline.translate(x, tile=tile)
        _, overlap = pipeline.tiles(tile)
        seams = ratio(result, tile, overlap) / ratio(whole, tile, overlap)
        psnr = -10 * torch.log10(((result - whole) / 2).square().mean()).item()
        told = f"seams {seams:.3f}, {psnr:.1f} dB from one pass, {time.perf_counter() - begun:.0f} s"
        print(f"tiles of {tile} that overlap by {overlap}: {told}", flush=True)


if __name__ == "__main__":
    main()
