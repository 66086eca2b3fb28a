"""How fast images are sampled, beside a notebook's loop and beside torch.compile. Asserts nothing.

A: batches of 128 by Euler steps, with two forwards a step where there is guidance, on the network as it was made.
B: `Pipeline.sample`. C: the same with a compiled network. All take turns in one process; ratios are of one round.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.presets import PIPELINES
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.hardware import best_device, describe_machine, keep_freed_memory, use_cores


@torch.no_grad()
def notebook(pipeline: Pipeline, count: int, steps: int) -> Tensor:
    """Return samples as a course notebook draws them, on the uniform grid."""
    model, config, device = pipeline.model, pipeline.config, pipeline.device
    parts = []
    for start in range(0, count, 128):
        size = min(128, count - start)
        x = torch.randn(size, *config.shape, device=device)
        label = torch.arange(size, device=device) % config.num_classes if config.num_classes else None
        condition = Condition(label, None, config.num_classes)
        unconditional = condition.unconditional()
        for step in range(steps):
            t = torch.full((size,), step / steps, device=device)
            v = model(x, t, condition)
            if label is not None:
                without = model(x, t, unconditional)
                v = without + config.solver.guidance * (v - without)
            x = x + v / steps
        parts.append(x)
    return torch.cat(parts)


def sampled(pipeline: Pipeline, count: int, steps: int) -> Tensor:
    classes = pipeline.config.num_classes
    labels = torch.arange(count) % classes if classes else None
    return pipeline.sample(count, labels, solver="euler", steps=steps)


def speed(run: Callable[[], Tensor]) -> float:
    """Return images per second."""
    started = time.perf_counter()
    count = len(run())
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return count / (time.perf_counter() - started)


def told(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}–{max(values):{form}})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="noise2mnist-cfg", choices=PIPELINES)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: all cores")
    options = parser.parse_args()
    use_cores(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    pipeline = Pipeline(PIPELINES[options.pipeline])
    pipeline.model.to(best_device()).eval()
    compiled = Pipeline(pipeline.config, torch.compile(pipeline.model))
    count, steps = options.count, options.steps
    contenders: dict[str, Callable[[], Tensor]] = {
        "A notebook": lambda: notebook(pipeline, count, steps),
        "B Pipeline.sample": lambda: sampled(pipeline, count, steps),
        "C compiled": lambda: sampled(compiled, count, steps),
    }
    sampled(
        compiled, min(count, pipeline.block_size + count % pipeline.block_size), 2
    )  # each shape is compiled before the clock
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, run in contenders.items():
            found[name].append(speed(run))
    print(f"{options.pipeline}, {count:,} images, Euler, {steps} steps, guidance {pipeline.config.solver.guidance:g}")
    print(f"{describe_machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    base = found["A notebook"]
    for name, rates in found.items():
        ratios = [rate / first for rate, first in zip(rates, base, strict=True)]
        print(f"{name:18} {told(rates, '.1f'):>22} images/s   {told(ratios, '.3f')} of A")


if __name__ == "__main__":
    main()
