"""A translation by onnxruntime beside the same by torch, and in smaller numbers. Asserts nothing.

    python launch.py export --pipeline fashion2mnist-fast --format onnx --output onnx
    python tests/benchmarks/bench_onnx.py --pipeline fashion2mnist-fast --onnx onnx --data-root data --threads 1
    python tests/benchmarks/bench_onnx.py --pipeline fashion2mnist-fast --onnx onnx --data-root data --variants

Both get the same images of the test split, noise and labels, in blocks of the same size, in turns. --variants adds the
file with weights and activations of 8 bits, and of 16, as onnxruntime's own tools make them; the Fréchet distance is
that of `evaluate`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowferry import launch  # isort: skip  # noqa: F401  (it tells idle threads to sleep)
import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from flowferry.configs.locations import default_data_root
from flowferry.configs.options import EvaluateOptions
from flowferry.datasets.pixels import to_images, to_pixels
from flowferry.pipelines.evaluate import Evaluation
from flowferry.pipelines.hardware import describe_machine
from flowferry.pipelines.publishing.onnx_files import TRANSLATION
from flowferry.pipelines.publishing.onnx_graphs import TranslationGraph
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage.hub import find_weights

Translate = Callable[[tuple[Tensor, ...]], Tensor]
"""Inputs of a translation -> uint8 [B, H, W, C]."""


def by_onnx(data: bytes, graph: TranslationGraph, threads: int) -> Translate:
    """Return the translation of an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def translate(inputs: tuple[Tensor, ...]) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(["result"], given)[0])

    return translate


def in_half(data: bytes) -> bytes:
    """Return a translation with numbers of 16 bits between its pixels."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half: bytes = convert_float_to_float16(onnx.load_from_string(data), keep_io_types=True).SerializeToString()
    return half


def in_eight_bits(data: bytes, graph: TranslationGraph, blocks: list[tuple[Tensor, ...]]) -> bytes:
    """Return a translation with weights and activations of 8 bits, whose ranges are those seen in `blocks`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

    class Blocks(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(blocks)

        def get_next(self) -> dict[str, Any] | None:
            block = next(self.rest, None)
            return block and {name: tensor.numpy() for name, tensor in zip(graph.inputs, block, strict=True)}

    with TemporaryDirectory() as folder:
        whole, prepared, small = (Path(folder, f"{name}.onnx") for name in ("whole", "prepared", "small"))
        whole.write_bytes(data)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        kinds: Any = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
        quantize_static(prepared, small, Blocks(), op_types_to_quantize=["Conv", "ConvTranspose"], **kinds)
        return small.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--onnx", type=Path, required=True, help="the folder that was exported")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", action="store_true", help="also fp16 and int8, with Fréchet distances")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = RunFolder.load(find_weights(args.pipeline), args.data_root, precision="fp32")
    options = EvaluateOptions(pipeline=args.pipeline, data_root=args.data_root, count=args.count, skip_cost=True)
    evaluation = Evaluation.of(run, options)
    graph = TranslationGraph(evaluation.pipeline, evaluation.pipeline.conditional_velocity).eval()
    source = evaluation.evaluation_set.source.samples.cpu()
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(0))
    every = {"noise": noise, "label": torch.arange(args.count) % max(1, graph.num_classes)}
    every |= {} if run.config.source.is_noise else {"image": to_pixels(source).movedim(1, -1)}
    blocks = list(zip(*(every[name].split(run.pipeline.block_size) for name in graph.inputs), strict=True))
    data = (args.onnx / TRANSLATION).read_bytes()
    contenders: dict[str, Translate] = {"torch": lambda inputs: torch.no_grad()(graph)(*inputs)[0]}
    files = {"onnxruntime": data}
    if args.variants:
        files |= {"fp16": in_half(data), "int8": in_eight_bits(data, graph, blocks[:8])}
    contenders |= {name: by_onnx(file, graph, args.threads) for name, file in files.items()}
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Tensor] = {}
    for turn in range(args.rounds + 1):
        for name, translate in contenders.items():
            begun = time.perf_counter()
            results[name] = torch.cat([translate(block) for block in blocks])
            if turn:  # the first one warms up
                rates[name].append(args.count / (time.perf_counter() - begun))
    print(f"{args.count} images, {run.pipeline.sampling}, {args.threads} threads; {describe_machine()}")
    print("| | MB | images/s | beside torch | largest difference of 255 | Fréchet |\n|---|---|---|---|---|---|")
    for name, result in results.items():
        beside = [one / other for one, other in zip(rates[name], rates["torch"], strict=True)]
        spread = f"{statistics.median(beside):.2f} ({min(beside):.2f}–{max(beside):.2f})"
        apart = np.abs(result.numpy().astype(int) - results["torch"].numpy().astype(int))
        images = to_images(result.movedim(-1, 1))
        frechet = f"{evaluation.reference.frechet(images):.3f}" if evaluation.reference else ""
        size = f"{len(files[name]) / 1e6:.1f}" if name in files else ""
        told = f"{apart.max()} ({(apart > 0).mean():.1e} of all values differ)"
        print(f"| {name} | {size} | {statistics.median(rates[name]):.0f} | {spread} | {told} | {frechet} |")


if __name__ == "__main__":
    main()
