"""What each of the trainer's choices is worth: the bare step as in a run, and with one thing changed. Asserts nothing.

All take turns in one process; the ratio to the step as in a run is taken within a round. Forward, backward and the
optimizer on one fixed batch.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from bench_train import Contender, bare, machine, measure, spread

from flowferry.configs.cli import parse_train
from flowferry.pipelines.train import Trainer


def with_adam(trainer: Trainer, **changes: Any) -> Contender:
    """Return C with other arguments to torch's Adam and AdamW than the project gives them."""

    def instead(made: Any) -> Any:
        return lambda parameters, **told: made(parameters, **{**told, **changes})

    with patch.multiple(torch.optim, Adam=instead(torch.optim.Adam), AdamW=instead(torch.optim.AdamW)):
        return bare(trainer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="per round and contender")
    options, rest = parser.parse_known_args()
    asked = parse_train(rest or ["--pipeline", "fashion2mnist", "--quick"])
    with TemporaryDirectory() as folder:
        trainer = Trainer(asked.config, Path(folder), data_root=asked.data_root)
        bf16 = trainer.processes.accelerator.mixed_precision == "bf16"
        contenders = {
            "as in a run": bare(trainer),
            "contiguous": bare(trainer, layout=torch.contiguous_format),
            "channels_last": bare(trainer, layout=torch.channels_last),
            "fp32 instead of bf16" if bf16 else "bf16 instead of fp32": bare(trainer, bf16=not bf16),
            "foreach instead of fused Adam": with_adam(trainer, fused=False, foreach=True),
            "Adam parameter by parameter": with_adam(trainer, fused=False, foreach=False),
            "compiled": bare(trainer, compiled=True),
        }
        size = trainer.config.train.batch_size
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
