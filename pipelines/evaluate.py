"""The verb `evaluate`: how good a pipeline's results are and what they cost, with the real data's figures beside."""

import json
import logging
import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from configs.checks import UserError
from configs.cli import EvaluateOptions
from configs.places import classifiers_of
from configs.schema import Config, SolverConfig
from datasets.keyed import generator
from pipelines import distances, weights
from pipelines.checkpoint import sha256
from pipelines.classifier import TrainedClassifier
from pipelines.costs import Cost, cheapest, cost_figure, measured
from pipelines.fidelity import EvaluationSet, Extracted, Fidelity, Figures, feature_extractor
from pipelines.machine import described, keep_freed_memory, use_cores
from pipelines.pipeline import Pipeline
from pipelines.runs import Run
from pipelines.sheets import caption, how

log = logging.getLogger("flowferry")

COUNT = 2000  # results that are measured, where the data allow
BACK = 500  # of them are carried back to the source
FEWEST = 2  # real samples that have a spread


def run(options: EvaluateOptions, folder: Path) -> int:
    """Measures, prints a table, and writes `evaluation.json`, `evaluation.png` and TensorBoard's scalars."""
    use_cores()
    keep_freed_memory()
    evaluation = Evaluation.of(Run.load(folder, options.data_root), options)
    costs: list[Cost] = []
    if options.solver is None and options.steps is None and not options.skip_cost and evaluation.fidelity:
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
    pipeline: Pipeline
    evaluation_set: EvaluationSet
    classifier: TrainedClassifier | None
    fidelity: Fidelity | None
    """None where the target has no labels to train a classifier on."""

    @classmethod
    def of(cls, run: Run, options: EvaluateOptions) -> "Evaluation":
        """Raises UserError where there are fewer samples than are asked for, or too few for any figure."""
        asked = run.pipeline.using(solver=options.solver, steps=options.steps, guidance=options.guidance)
        evaluation_set = EvaluationSet(run.config, run.test, count_of(run, options), options.seed, options.batch_size)
        classifiers = classifiers_of(weights.results_folder(run.folder, run.config))
        found = feature_extractor(run.config, run.train[1], data_root=options.data_root, folder=classifiers)
        if found is None:
            return cls(run, asked, evaluation_set, None, None)
        return cls(run, asked, evaluation_set, found.classifier, Fidelity(found.extract, evaluation_set.real))

    def using(self, **changes: Any) -> "Evaluation":
        return replace(self, pipeline=self.pipeline.using(**changes))

    @property
    def config(self) -> Config:
        return self.pipeline.config

    @property
    def count(self) -> int:
        return self.evaluation_set.count

    # --- samples -------------------------------------------------------------------------------------

    @cached_property
    def translated(self) -> tuple[Tensor, float]:
        """(results, seconds)"""
        started = time.perf_counter()
        result = self.evaluation_set.generate(self.pipeline)
        return result.cpu(), time.perf_counter() - started

    @cached_property
    def outputs(self) -> Tensor:
        return self.translated[0].to(self.pipeline.device)

    @cached_property
    def extracted(self) -> Extracted:
        """Features and class probabilities of the results."""
        assert self.fidelity is not None
        return self.fidelity.extract(self.outputs)

    # --- figures -------------------------------------------------------------------------------------

    def frechet_with(self, solver: SolverConfig) -> tuple[int, float]:
        """(NFE, Fréchet distance) of the same samples with another solver."""
        assert self.fidelity is not None
        pipeline = self.pipeline.using(solver=solver.name, steps=solver.steps)
        return pipeline.evaluations, self.fidelity.frechet(self.evaluation_set.generate(pipeline))

    def target_side(self) -> tuple[Figures, Figures]:
        """(of the results, of as many real training samples): held against those of the test split.

        The classifier has learnt from the training samples too.
        """
        if self.fidelity is None:
            return {}, {}
        fidelity = self.fidelity
        real = self.evaluation_set.drawn(self.run.train[1], self.count, "floor").samples
        return fidelity.figures(self.extracted), fidelity.figures(fidelity.extract(real))

    def memorising(self) -> tuple[Figures, Figures]:
        """(of the results, of real samples of the test split), which training has not seen."""
        train, test = self.run.train[1], self.run.test[1]
        if train.size is None:
            return {}, {}
        everything = train.draw(train.size, seed=0, step=0).samples
        held_out = self.evaluation_set.drawn(test, min(self.count, test.size or self.count), "held out").samples
        of_results, of_real = (distances.memorised(samples, everything) for samples in (self.outputs, held_out))
        return {"memorised": of_results}, {"memorised": of_real}

    def translation_side(self) -> tuple[Figures, Figures]:
        """(of the pairs of a source sample and its result, of shuffled pairs)."""
        (x0, labels), x1 = self.evaluation_set.source, self.outputs
        order = torch.randperm(len(x0), generator=generator("cpu", self.evaluation_set.seed, "shuffle")).to(x1.device)
        asked, read = self.evaluation_set.asked, self.pipeline.read(x0)
        told = read if asked is None else asked
        kept = {"distance": rms(x1 - x0)}
        chance = {"distance": rms(x1[order] - x0)}
        probabilities = self.extracted[1] if self.fidelity else None
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
            back = self.pipeline.invert(x1[:BACK], labels_back, batch_size=self.evaluation_set.batch_size)
            kept["round trip"] = rms(back - x0[:BACK])
            chance["round trip"] = rms(x0[order][:BACK] - x0[:BACK])
        return kept, chance

    def result(self, costs: list[Cost]) -> dict[str, Any]:
        """Everything, as `evaluation.json` holds it; all but "timing" is the same the next time."""
        config, folder = self.config, weights.located(self.run.folder)
        told: dict[str, Any] = {
            "pipeline": config.name,
            "data": weights.describe(config)["data"],
            "weights_sha256": sha256(folder / weights.WEIGHTS),
            "step": weights.step_of(folder),
            "count": self.count,
            "seed": self.evaluation_set.seed,
            "sampling": how(self.pipeline),
            "nfe": self.pipeline.evaluations,
        }
        if self.classifier:
            told["features"] = {"sha256": self.classifier.sha256, "accuracy": self.classifier.accuracy}
        elif self.fidelity is None:
            told["features"] = f"none: {config.target.kind} has not two classes to train a classifier on"
        for results, real in (self.target_side(), self.memorising()):
            if results:
                told["target"], told["real"] = told.get("target", {}) | results, told.get("real", {}) | real
        told["translation"], told["shuffled"] = self.translation_side()
        if costs:
            told["cost"] = [cost._asdict() for cost in costs]
        seconds = self.translated[1]
        return told | {"timing": {"milliseconds an image": 1000 * seconds / self.count, "machine": described()}}

    # --- keeping -------------------------------------------------------------------------------------

    def keep(self, result: dict[str, Any], costs: list[Cost], output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        weights.write_json(output / weights.EVALUATION, result)
        (output / "evaluation.png").unlink(missing_ok=True)  # of other figures
        step = result["step"]
        with SummaryWriter(str(output / "tensorboard")) as writer:
            writer.add_text("evaluation", indent(json.dumps(result, indent=2), " " * 4), step)
            for group, tag in TAGS.items():
                for name, value in result.get(group, {}).items():
                    writer.add_scalar(f"{tag}/{name.replace(' ', '_')}", value, step)
            if costs:
                title = caption(self.config, f"{self.count} samples, step {step}")
                picture = cost_figure(costs, cheapest(costs), result["real"]["frechet"], title)
                picture.save(output / "evaluation.png")
                writer.add_image("evaluation/cost", np.asarray(picture), step, dataformats="HWC")


TAGS = {
    "target": "evaluation",
    "translation": "evaluation",
    "real": "evaluation of real samples",
    "shuffled": "evaluation of shuffled pairs",
}


def count_of(run: Run, options: EvaluateOptions) -> int:
    """As many samples as are asked for, or as many as there are of the source and, for the floor, of the target."""
    sizes = {"test samples of the source": run.test[0].size, "training samples of the target": run.train[1].size}
    for what, size in {**sizes, "test samples of the target": run.test[1].size}.items():
        if size is not None and size < FEWEST:
            raise UserError(f"evaluate: found {size} {what}, accepted are at least {FEWEST}")
    for what, size in sizes.items():
        if options.count is not None and size is not None and options.count > size:
            raise UserError(f"--count: found {options.count}, accepted are at most the {size} {what}")
    return options.count or min([COUNT, *(size for size in sizes.values() if size is not None)])


def rms(difference: Tensor) -> float:
    """√ mean over samples and elements, in units of [-1, 1]."""
    return math.sqrt(difference.square().mean().item())


def share(which: Tensor) -> float:
    return which.double().mean().item()


def table(result: dict[str, Any]) -> str:
    """The figures, each beside what real data or chance gives."""
    features = result.get("features")
    through = (
        f"classifier {features['sha256'][:8]}, right on {features['accuracy']:.2%}"
        if isinstance(features, dict)
        else features
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
