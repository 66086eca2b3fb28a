"""The verb `evaluate`: how good a pipeline's results are and what they cost, with the real data's figures beside."""

import logging
import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from configs.checks import UserError
from configs.cli import EvaluateOptions
from configs.schema import Config, SolverConfig
from datasets.keyed import generator
from pipelines import distances, weights
from pipelines.checkpoint import sha256
from pipelines.classifier import Judge
from pipelines.costs import Cost, cheapest, cost_figure, measured
from pipelines.likeness import Figures, Likeness, Questions, Seen, eyes
from pipelines.machine import described, keep_freed_memory, use_cores
from pipelines.pipeline import Pipeline
from pipelines.runs import Run
from pipelines.sheets import caption, how

log = logging.getLogger("flowferry")

BACK = 500  # results that are carried back to the source


def run(options: EvaluateOptions, folder: Path) -> int:
    """Measures, prints a table, and writes `evaluation.json`, `evaluation.png` and TensorBoard's scalars."""
    use_cores()
    keep_freed_memory()
    evaluation = Evaluation.of(Run.load(folder, options.data_root), options)
    costs: list[Cost] = []
    if options.solver is None and options.steps is None and not options.skip_cost and evaluation.likeness:
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
        kept = evaluation.run.pipeline.using(solver=chosen.solver, steps=chosen.steps)
        weights.write_json(weights.located(folder) / weights.CONFIG, weights.describe(kept.config))
    log.info("%s", output / weights.EVALUATION)
    return 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One pipeline on fixed source samples of the test split; what is costly is computed once."""

    run: Run
    options: EvaluateOptions
    pipeline: Pipeline
    questions: Questions
    judge: Judge | None
    likeness: Likeness | None
    """None where the target has no labels to train a classifier on."""

    @classmethod
    def of(cls, run: Run, options: EvaluateOptions) -> "Evaluation":
        """Raises UserError where the source has fewer samples than are asked for."""
        size = run.test[0].size
        if size is not None and options.count > size:
            raise UserError(f"--count: found {options.count}, accepted are at most the source's {size} test samples")
        asked = run.pipeline.using(solver=options.solver, steps=options.steps, guidance=options.guidance)
        questions = Questions(run.config, run.test, options.count, options.seed, options.batch_size)
        classifiers = weights.results_folder(run.folder, run.config).parent / "classifiers"
        found = eyes(run.config, run.train[1], data_root=options.data_root, folder=classifiers)
        if found is None:
            return cls(run, options, asked, questions, None, None)
        return cls(run, options, asked, questions, found.judge, Likeness(found.see, questions.real))

    def using(self, **changes: Any) -> "Evaluation":
        return replace(self, pipeline=self.pipeline.using(**changes))

    @property
    def config(self) -> Config:
        return self.pipeline.config

    # --- samples -------------------------------------------------------------------------------------

    @cached_property
    def translated(self) -> tuple[Tensor, float]:
        """(results, seconds)"""
        started = time.perf_counter()
        result = self.questions.answers(self.pipeline)
        return result.cpu(), time.perf_counter() - started

    @cached_property
    def outputs(self) -> Tensor:
        return self.translated[0].to(self.pipeline.device)

    @cached_property
    def seen(self) -> Seen:
        """Features and class probabilities of the results."""
        assert self.likeness is not None
        return self.likeness.see(self.outputs)

    # --- figures -------------------------------------------------------------------------------------

    def frechet_with(self, solver: SolverConfig) -> tuple[int, float]:
        """(NFE, Fréchet distance) of the same samples with another solver."""
        assert self.likeness is not None
        pipeline = self.pipeline.using(solver=solver.name, steps=solver.steps)
        return pipeline.evaluations, self.likeness.frechet(self.questions.answers(pipeline))

    def target_side(self) -> tuple[Figures, Figures]:
        """(of the results, of as many real samples): training images against those of the test split.

        The classifier has learnt from the training images too. Only for memorising are the real samples those of the
        test split: the training images are what it asks about.
        """
        assert self.likeness is not None
        drawn, like = self.questions.drawn, self.likeness
        count, (train, test) = self.options.count, (self.run.train[1], self.run.test[1])
        real = drawn(train, min(count, train.size or count), "floor").samples
        results, floor = like.figures(self.seen), like.figures(like.see(real))
        if train.size is not None:
            everything = train.draw(train.size, seed=0, step=0).samples
            held_out = drawn(test, min(count, test.size or count), "held out").samples
            results["memorised"] = distances.memorised(self.outputs, everything)
            floor["memorised"] = distances.memorised(held_out, everything)
        return results, floor

    def translation_side(self) -> tuple[Figures, Figures]:
        """(of the pairs of a source sample and its result, of shuffled pairs)."""
        (x0, labels), x1 = self.questions.source, self.outputs
        order = torch.randperm(len(x0), generator=generator("cpu", self.options.seed, "shuffle")).to(x1.device)
        asked, read = self.questions.asked, self.pipeline.read(x0)
        told = read if asked is None else asked
        kept = {"distance": rms(x1 - x0)}
        chance = {"distance": rms(x1[order] - x0)}
        probabilities = self.seen[1] if self.likeness else None
        if probabilities is not None:
            found = probabilities.argmax(dim=1)
            if labels is not None:
                kept["mutual information"] = distances.mutual_information(labels, found)
                chance["mutual information"] = distances.mutual_information(labels, found[order])
                if self.config.coupling in ("label", "label-ot", "given"):
                    kept["same label"] = share(found == labels)
                    chance["same label"] = share(found[order] == labels)
                if read is not None:
                    kept["label read"] = share(read == labels)
                    chance["label read"] = share(read[order] == labels)
            if asked is not None:
                wanted = asked.to(found.device)
                kept["asked class"] = share(found == wanted)
                chance["asked class"] = share(found[order] == wanted)
        if self.config.solver.name != "ancestral" and self.config.path != "one-step":
            labels_back = None if told is None else told[:BACK]
            back = self.pipeline.invert(x1[:BACK], labels_back, batch_size=self.options.batch_size)
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
        elif self.likeness is None:
            told["features"] = f"none: {config.target.kind} has no labels to train a classifier on"
        if self.likeness is not None:
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
