"""The verb `evaluate`: how good a pipeline's results are and what they cost, with the real data's figures beside."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from configs.cli import EvaluateOptions
from configs.schema import Config, SolverConfig, UserError
from datasets import Batch, Sampler
from datasets.keyed import generator, key
from pipelines import classifier, distances, weights
from pipelines.checkpoint import sha256
from pipelines.classifier import Judge, trained_classifier
from pipelines.costs import Cost, cheapest, cost_figure, measured
from pipelines.machine import described, keep_freed_memory, use_cores
from pipelines.pipeline import Pipeline
from pipelines.runs import Run
from pipelines.sheets import caption, how

log = logging.getLogger("flowferry")

MOST = 10_000  # real samples that are compared with
BACK = 500  # results that are carried back to the source

Figures = dict[str, float]


def run(options: EvaluateOptions, folder: Path) -> int:
    """Measures, prints a table, and writes `evaluation.json`, `evaluation.png` and TensorBoard's scalars."""
    use_cores()
    keep_freed_memory()
    evaluation = Evaluation.of(Run.load(folder, options.data_root), options)
    costs: list[Cost] = []
    if options.solver is None and options.steps is None and not options.skip_cost and evaluation.see is not None:
        costs = measured(evaluation.config, evaluation.frechet_with)
        chosen = cheapest(costs)
        log.info("cheapest within 5 %% of the best: %s, %d steps", chosen.solver, chosen.steps)
        evaluation = evaluation.using(solver=chosen.solver, steps=chosen.steps)
    result = evaluation.result(costs)
    print(table(result))
    own = weights.results_folder(folder, evaluation.config)
    output = options.output or own
    evaluation.keep(result, costs, output)
    if own == folder and costs:  # other people's weights are left as they are
        weights.write_json(weights.located(folder) / weights.CONFIG, weights.describe(evaluation.config))
    log.info("%s", output / weights.EVALUATION)
    return 0


def eyes(run: Run, data_root: Path) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor | None]] | None, Judge | None]:
    """(samples -> features and class probabilities, the classifier that gives them).

    Points in the plane are their own features. Of images without labels nothing is known: (None, None).
    """
    config, target = run.config, run.train[1]
    if len(config.shape) == 1:
        return lambda points: (points, None), None
    if not target.classes:
        return None, None
    judge = trained_classifier(
        config.target,
        config.shape,
        data_root=data_root,
        folder=weights.results_folder(run.folder, config).parent / "classifiers",
        device=run.pipeline.device,
    )
    return lambda images: classifier.seen(judge.classifier, images), judge


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One pipeline on fixed source samples of the test split; what is costly is computed once."""

    run: Run
    options: EvaluateOptions
    pipeline: Pipeline
    see: Callable[[Tensor], tuple[Tensor, Tensor | None]] | None
    judge: Judge | None

    @classmethod
    def of(cls, run: Run, options: EvaluateOptions) -> "Evaluation":
        """Raises UserError where the source has fewer samples than are asked for."""
        size = run.test[0].size
        if size is not None and options.count > size:
            raise UserError(f"--count: found {options.count}, accepted are at most the source's {size} test samples")
        asked = run.pipeline.using(solver=options.solver, steps=options.steps, guidance=options.guidance)
        return cls(run, options, asked, *eyes(run, options.data_root))

    def using(self, **changes: Any) -> "Evaluation":
        return replace(self, pipeline=self.pipeline.using(**changes))

    @property
    def config(self) -> Config:
        return self.pipeline.config

    # --- samples -------------------------------------------------------------------------------------

    def drawn(self, sampler: Sampler, count: int, name: str) -> Batch:
        return sampler.draw(count, seed=key(self.options.seed, "evaluate", name), step=0)

    @cached_property
    def source(self) -> Batch:
        return self.drawn(self.run.test[0], self.options.count, "source")

    @cached_property
    def asked(self) -> Tensor | None:
        """The classes in turn, of a pipeline that is told them."""
        return torch.arange(self.options.count) % self.config.classes if self.config.classes else None

    @cached_property
    def translated(self) -> tuple[Tensor, float]:
        """(results, seconds)"""
        started = time.perf_counter()
        result = self.translate(self.pipeline)
        return result.cpu(), time.perf_counter() - started

    def translate(self, pipeline: Pipeline) -> Tensor:
        options = self.options
        return pipeline.translate(self.source.samples, self.asked, seed=options.seed, batch_size=options.batch_size)

    @cached_property
    def outputs(self) -> Tensor:
        return self.translated[0].to(self.pipeline.device)

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor | None]:
        """Features and class probabilities of the results."""
        assert self.see is not None
        return self.see(self.outputs)

    @cached_property
    def reference(self) -> Tensor:
        """Features of real samples of the test split."""
        assert self.see is not None
        target = self.run.test[1]
        real = self.drawn(target, min(target.size or MOST, MOST), "reference").samples
        return self.see(real)[0]

    # --- figures -------------------------------------------------------------------------------------

    def frechet_with(self, solver: SolverConfig) -> tuple[int, float]:
        """(NFE, Fréchet distance) of the same samples with another solver."""
        assert self.see is not None
        pipeline = self.pipeline.using(solver=solver.name, steps=solver.steps)
        features, _ = self.see(self.translate(pipeline))
        return pipeline.evaluations, distances.frechet(self.reference, features)

    def likeness(self, seen: tuple[Tensor, Tensor | None]) -> Figures:
        """How like the real ones samples are, by their features and class probabilities."""
        real, (features, probabilities) = self.reference, seen
        figures = {
            "frechet": distances.frechet(real, features),
            "kernel": distances.kernel(real, features),
            **distances.neighbourhoods(real, features)._asdict(),
        }
        if probabilities is not None:
            best = probabilities.max(dim=1)
            histogram = torch.bincount(best.indices, minlength=probabilities.shape[1])
            figures |= {
                "class entropy": distances.entropy(histogram),
                "confidence": best.values.mean().item(),
                **{f"share of class {label}": n / len(features) for label, n in enumerate(histogram.tolist())},
            }
        return figures

    def target_side(self) -> tuple[Figures, Figures]:
        """(of the results, of as many real samples): the training images against those of the test split.

        Only for memorising are the real samples those of the test split: the training images are what it asks about.
        """
        assert self.see is not None
        count, (train, test) = self.options.count, (self.run.train[1], self.run.test[1])
        real = self.drawn(train, min(count, train.size or count), "floor").samples
        results, floor = self.likeness(self.seen), self.likeness(self.see(real))
        if train.size is not None:
            everything = train.draw(train.size, seed=0, step=0).samples
            held_out = self.drawn(test, min(count, test.size or count), "held out").samples
            results["memorised"] = distances.memorised(self.outputs, everything)
            floor["memorised"] = distances.memorised(held_out, everything)
        return results, floor

    def translation_side(self) -> tuple[Figures, Figures]:
        """(of the pairs of a source sample and its result, of shuffled pairs)."""
        x0, x1 = self.source.samples, self.outputs
        order = torch.randperm(len(x0), generator=generator("cpu", self.options.seed, "shuffle")).to(x1.device)
        kept = {"distance": rms(x1 - x0)}
        chance = {"distance": rms(x1[order] - x0)}
        probabilities = self.seen[1] if self.see else None
        if probabilities is not None:
            found, labels = probabilities.argmax(dim=1), self.source.labels
            if labels is not None:
                kept["mutual information"] = distances.mutual_information(labels, found)
                chance["mutual information"] = distances.mutual_information(labels, found[order])
                if self.config.coupling in ("label", "label-ot", "given"):
                    kept["same label"] = share(found == labels)
                    chance["same label"] = share(found[order] == labels)
            if self.asked is not None:
                asked = self.asked.to(found.device)
                kept["asked class"] = share(found == asked)
                chance["asked class"] = share(found[order] == asked)
        if self.config.solver.name != "ancestral" and self.config.path != "one-step":
            labels = None if self.asked is None else self.asked[:BACK]
            back = self.pipeline.invert(x1[:BACK], labels, batch_size=self.options.batch_size)
            kept["round trip"] = rms(back - x0[:BACK])
            chance["round trip"] = rms(x0[order][:BACK] - x0[:BACK])
        return kept, chance

    def result(self, costs: list[Cost]) -> dict[str, Any]:
        """Everything, as `evaluation.json` holds it; all but "timing" is the same the next time."""
        config, options = self.config, self.options
        told: dict[str, Any] = {
            "pipeline": config.name,
            "data": weights.describe(config)["data"],
            "weights_sha256": sha256(weights.located(self.run.folder) / weights.WEIGHTS),
            "step": self.run.step,
            "count": options.count,
            "seed": options.seed,
            "sampling": how(self.pipeline),
            "nfe": self.pipeline.evaluations,
        }
        if self.judge:
            told["features"] = {"sha256": self.judge.sha256, "accuracy": self.judge.accuracy}
        elif self.see is None:
            told["features"] = f"none: {config.target.kind} has no labels to train a classifier on"
        if self.see is not None:
            told["target"], told["real"] = self.target_side()
        told["translation"], told["shuffled"] = self.translation_side()
        if costs:
            told["cost"] = [cost._asdict() for cost in costs]
        seconds = self.translated[1]
        return told | {"timing": {"milliseconds an image": 1000 * seconds / options.count, "machine": described()}}

    # --- keeping -------------------------------------------------------------------------------------

    def keep(self, result: dict[str, Any], costs: list[Cost], output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        weights.write_json(output / weights.EVALUATION, result)
        with SummaryWriter(str(output / "tensorboard")) as writer:
            for group in ("target", "translation"):
                for name, value in result.get(group, {}).items():
                    writer.add_scalar(f"evaluation/{name.replace(' ', '_')}", value, self.run.step)
            if costs:
                title = caption(self.config, f"{self.options.count} samples, {self.run.when}")
                picture = cost_figure(costs, cheapest(costs), result["real"]["frechet"], title)
                picture.save(output / "evaluation.png")
                writer.add_image("evaluation/cost", np.asarray(picture), self.run.step, dataformats="HWC")


def rms(difference: Tensor) -> float:
    """√ mean over samples and elements, in units of [-1, 1]."""
    return math.sqrt(difference.square().mean().item())


def share(which: Tensor) -> float:
    return which.double().mean().item()


def table(result: dict[str, Any]) -> str:
    """The figures, each beside what real data or chance gives."""
    judged = result.get("features")
    through = (
        f"classifier {judged['sha256'][:8]}, right on {judged['accuracy']:.2%}" if isinstance(judged, dict) else judged
    )
    lines = [
        f"{result['pipeline']}: {result['count']:,} samples, {result['sampling']}, "
        f"{result['timing']['milliseconds an image']:.2f} ms an image",
        f"features: {through or 'the points themselves'}",
    ]
    for title, group, other in (
        ("target", "target", "real"),
        ("translation", "translation", "shuffled"),
    ):
        if group in result:
            lines.append(f"\n{title:<22}{'results':>12}{other:>12}")
            lines += [f"{name:<22}{value:>12.4g}{result[other][name]:>12.4g}" for name, value in result[group].items()]
    if "cost" in result:
        lines.append(f"\n{'cost':<12}{'steps':>6}{'NFE':>6}{'Fréchet':>12}")
        lines += [f"{c['solver']:<12}{c['steps']:>6}{c['nfe']:>6}{c['frechet']:>12.4g}" for c in result["cost"]]
    return "\n".join(lines)
