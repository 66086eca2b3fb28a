"""What an encoder that is trained without labels tells apart, on two folders of images with the same names.

Prints Fréchet distances from held-out target images as multiples of that of as many real ones; perceptual distances and
PSNR of the same pictures moved and blurred; and how often the true partner of a source image is the nearest of all.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch
from torchvision.transforms.functional import gaussian_blur

from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.presets import PIPELINES
from flowferry.datasets.builders import build_splits
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.encoder import trained_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = {"source": ImageFolderConfig(root=options.source), "target": ImageFolderConfig(root=options.target)}
    config = replace(PIPELINES["folders"], **sides, shape=(3, options.size, options.size), coupling="given")
    where = {"data_root": Path(), "device": torch.device("cpu")}
    (_, target), test = build_splits(config, splits=("train", "test"), **where)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        before = process_time()
        encoder = trained_encoder(config.target, target, folder=Path(folder)).encoder
        print(f"trained in {process_time() - before:.0f} s of processor time")
    source, truth = (side.draw(side.size or 0, seed=0, step=0).samples for side in test)
    real = target.draw(len(truth), seed=0, step=0).samples
    held_out = encoder.extract(truth)
    sets = {"real": real, "real, blurred 0.7": blurred(real, 0.7), "real, blurred 1.5": blurred(real, 1.5)}
    sets |= {"source": source, "source, blurred 1.5": blurred(source, 1.5)}
    distances = {name: metrics.frechet(held_out, encoder.extract(images)) for name, images in sets.items()}
    for name, distance in distances.items():
        print(f"Fréchet distance, {name:<20}{distance:>10.3f}{distance / distances['real']:>8.2f} × real")
    sharp = {f"moved by {k}": truth.roll(k, dims=3) for k in (1, 2)}
    pictures = sharp | {f"blurred {sigma}": blurred(truth, sigma) for sigma in (1.0, 1.5, 2.5)} | {"source": source}
    for name, images in pictures.items():
        found = metrics.perceptual(encoder.maps, images, truth).mean()
        print(f"truth, {name:<20} perceptual {found:.4f}   PSNR {metrics.closeness(images, truth).psnr:.2f} dB")
    among = metrics.embed(encoder.maps, truth)
    found = metrics.retrieval(metrics.embed(encoder.maps, source), among)
    pixels = metrics.retrieval(source.flatten(1), truth.flatten(1))
    print(f"true partner nearest of {len(truth)}: {found:.1%} by the encoder, {pixels:.1%} by pixels")


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return images blurred by a Gaussian of `sigma` pixels."""
    return gaussian_blur(images, [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)


if __name__ == "__main__":
    main()
