"""What each of the trainer's choices is worth: the bare step as in a run, and with one thing changed. Asserts nothing.

All take turns in one process; the ratio to the step as in a run is taken within a round. Forward, backward and the
optimiser on one fixed batch.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # ahead of any other `datasets`

from bench_train import Contender, Timed, machine, measure, spread

from configs.cli import parse_train
from models import build_model
from pipelines.losses import LOSSES
from pipelines.optimizers import OPTIMIZERS
from pipelines.trainer import Trainer


@contextmanager
def as_asked(**changes: Any) -> Iterator[None]:
    """torch's Adam and AdamW with other arguments than the project gives them."""
    kept = torch.optim.Adam, torch.optim.AdamW
    torch.optim.Adam, torch.optim.AdamW = (  # type: ignore[misc]
        lambda p, _made=made, **told: _made(p, **{**told, **changes}) for made in kept
    )
    try:
        yield
    finally:
        torch.optim.Adam, torch.optim.AdamW = kept  # type: ignore[misc]


def bare(
    trainer: Trainer,
    *,
    layout: torch.memory_format = torch.channels_last,
    autocast: bool = True,
    compiled: bool = False,
    **adam: Any,
) -> Contender:
    device = trainer.accelerator.device
    model = build_model(trainer.config).to(device).to(memory_format=layout)
    with as_asked(**adam):
        optimizers = OPTIMIZERS[trainer.train.optimizer](model, trainer.train.lr)
    run: Callable[..., torch.Tensor] = torch.compile(model) if compiled else model
    x0, x1, t, label = trainer.global_batch(0)
    xt, v = trainer.pipeline.path.interpolate(x0, x1, t), trainer.pipeline.path.velocity(x0, x1, t)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            prediction = run(xt, t, label)
        LOSSES[trainer.train.loss](prediction.float(), v).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return Contender(step, Timed(lambda: None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per round and contender")
    options, rest = parser.parse_known_args()
    asked = parse_train(rest or ["--pipeline", "fashion2mnist", "--quick"])
    with TemporaryDirectory() as folder:
        trainer = Trainer(asked.config, Path(folder), data_root=asked.data_root)
        bf16 = trainer.accelerator.mixed_precision == "bf16"
        contenders = {
            "as in a run": bare(trainer, autocast=bf16),
            "contiguous instead of channels_last": bare(trainer, autocast=bf16, layout=torch.contiguous_format),
            "fp32" if bf16 else "bf16": bare(trainer, autocast=not bf16),
            "foreach instead of fused Adam": bare(trainer, autocast=bf16, fused=False, foreach=True),
            "Adam parameter by parameter": bare(trainer, autocast=bf16, fused=False, foreach=False),
            "compiled": bare(trainer, autocast=bf16, compiled=True),
        }
        size = trainer.train.batch_size
        for one in contenders.values():  # warm up, compile
            measure(one, size, options.seconds)
        turns = [[measure(one, size, options.seconds)[0] for one in contenders.values()] for _ in range(options.rounds)]
    print(f"{asked.config.name}, batch {size}, {'bf16' if bf16 else 'fp32'}; {machine()}")
    for index, name in enumerate(contenders):
        rates = [turn[index] for turn in turns]
        ratios = [turn[index] / turn[0] for turn in turns]
        print(f"{name:36} {spread(rates, '.0f'):>18} images/s   {spread(ratios, '.3f')}")


if __name__ == "__main__":
    main()
