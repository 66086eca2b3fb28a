"""The verb `evaluate`: measure how good a pipeline's results are and what they cost, beside figures of real data."""

import logging
import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image
from torch import Tensor

from flowferry.configs.locations import classifier_folder
from flowferry.configs.options import EvaluateOptions
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.pipelines.evaluation import metrics
from flowferry.pipelines.evaluation.pairs import translation_figures
from flowferry.pipelines.evaluation.reference import (
    EvaluationSet,
    Extracted,
    FeatureExtractor,
    Figures,
    ReferenceSet,
    feature_extractor,
)
from flowferry.pipelines.evaluation.results import notes, save, table
from flowferry.pipelines.evaluation.solver_search import Cost, cheapest, cost_curve, cost_figure
from flowferry.pipelines.evaluation.variants import variant_figures
from flowferry.pipelines.hardware import best_device, describe_machine, keep_freed_memory, run_precision, use_cores
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import prepare_folder, write_json
from flowferry.pipelines.storage.hub import find_weights
from flowferry.pipelines.visualization.grids import caption, sheet, stacked

log = logging.getLogger("flowferry")

COUNT = 2000  # results to measure, where the data set is as large
SHOWN = 16  # pairs on the figure
MIN_SAMPLES = 2  # fewer have no variance


def run(options: EvaluateOptions) -> int:
    """Measure a pipeline, print a table and save the result; return the exit code.

    Writes `evaluation.json`, `evaluation.png` and TensorBoard's scalars. Keeps the cheapest good solver and its steps
    with the weights of a run, unless the options name one.
    """
    use_cores()
    keep_freed_memory()
    folder = find_weights(options.pipeline)
    precision = run_precision(options.precision, best_device())
    run_folder = RunFolder.load(folder, options.data_root, precision=precision)
    own = weights.results_folder(folder, run_folder.config)
    output = options.output or own
    prepare_folder(output, "--output")
    searches = options.solver is None and options.steps is None and not options.skip_cost
    chooses = searches and not run_folder.config.has_teacher  # a student's steps are what it was made for
    keeps = chooses and own == folder  # weights without a run, such as the shipped ones, stay as they are
    if keeps:
        what = "the cheapest solver, which is kept with the weights unless --skip-cost"
        prepare_folder(weights.weights_folder(folder), what)
    evaluation = Evaluation.of(run_folder, options)
    costs: list[Cost] = []
    if searches and evaluation.reference:
        costs = cost_curve(evaluation.config, evaluation.frechet_with)
        chosen = cheapest(costs)
        log.info("cheapest within 5 %% of the best: %s, %d steps", chosen.solver, chosen.steps)
    if chooses and costs:
        evaluation = evaluation.using(solver=chosen.solver, steps=chosen.steps)
    result = evaluation.result(costs) | {"precision": precision}
    print(table(result))  # first, so that it is not lost where it cannot be saved
    save(result, evaluation.figure(result, costs), output)
    if keeps and costs:
        kept = evaluation.run.pipeline.using(solver=chosen.solver, steps=chosen.steps)
        write_json(weights.weights_folder(folder) / weights.CONFIG, weights.describe(kept.config))
    log.info("%s", output / weights.EVALUATION)
    return 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One pipeline and the samples to measure it on. Costly results are computed once, when they are first used."""

    run: RunFolder
    pipeline: Pipeline
    evaluation_set: EvaluationSet
    extractor: FeatureExtractor | None
    """None for targets without features: see `has_features`."""
    reference: ReferenceSet | None
    """None likewise."""

    @classmethod
    def of(cls, run: RunFolder, options: EvaluateOptions) -> "Evaluation":
        """Return the evaluation that the options ask for.

        Raises UserError where there are fewer samples than asked for, or too few for any figure.
        """
        pipeline = run.pipeline.using(**options.sampling)
        evaluation_set = EvaluationSet(
            run.config, run.test, sample_count(run, options), options.seed, options.batch_size
        )
        folder = classifier_folder(weights.results_folder(run.folder, run.config))
        extractor = feature_extractor(run.config, run.train[1], data_root=options.data_root, folder=folder)
        if extractor is None:
            return cls(run, pipeline, evaluation_set, None, None)
        reference = ReferenceSet(extractor.extract, evaluation_set.real)
        return cls(run, pipeline, evaluation_set, extractor, reference)

    def using(self, **changes: Any) -> "Evaluation":
        """Return this evaluation with another solver, number of steps or guidance."""
        return replace(self, pipeline=self.pipeline.using(**changes))

    @property
    def config(self) -> Config:
        """The pipeline's configuration."""
        return self.pipeline.config

    @property
    def count(self) -> int:
        """The number of results."""
        return self.evaluation_set.count

    # --- samples -------------------------------------------------------------------------------------

    @cached_property
    def timed_results(self) -> tuple[Tensor, float]:
        """The results [count, *shape] on the CPU, and the seconds that generating them took."""
        started = time.perf_counter()
        result = self.evaluation_set.generate(self.pipeline)
        return result.cpu(), time.perf_counter() - started

    @cached_property
    def results(self) -> Tensor:
        """The results [count, *shape], on the pipeline's device."""
        return self.timed_results[0].to(self.pipeline.device)

    @cached_property
    def extracted(self) -> Extracted:
        """The features and class probabilities of the results."""
        assert self.reference is not None
        return self.reference.extract(self.results)

    # --- figures -------------------------------------------------------------------------------------

    def frechet_with(self, solver: SolverConfig) -> tuple[int, float]:
        """Return (NFE, Fréchet distance) of the same samples with another solver."""
        assert self.reference is not None
        pipeline = self.pipeline.using(solver=solver.name, steps=solver.num_steps)
        return pipeline.nfe, self.reference.frechet(self.evaluation_set.generate(pipeline))

    def target_figures(self) -> tuple[Figures, Figures]:
        """Return (figures of the results, figures of as many real training samples), against the test split.

        A classifier was trained on those training samples, which flatters them. Both are empty without a reference.
        """
        if self.reference is None:
            return {}, {}
        real = self.evaluation_set.draw(self.run.train[1], self.count, "floor").samples
        return self.reference.figures(self.extracted), self.reference.figures(self.reference.extract(real))

    def source_figures(self) -> Figures:
        """Return the figures of the source samples, as if they were results; empty for noise or without a reference."""
        if self.reference is None or self.config.source.is_noise:
            return {}
        return self.reference.figures(self.reference.extract(self.evaluation_set.source.samples))

    def memorization_figures(self) -> tuple[Figures, Figures]:
        """Return (memorization rate of the results, that of real test samples); both empty for an endless target."""
        train, test = self.run.train[1], self.run.test[1]
        if train.size is None:
            return {}, {}
        everything = train.draw(train.size, seed=0, step=0).samples
        held_out = self.evaluation_set.draw(test, min(self.count, test.size or self.count), "held out").samples
        of_results, of_real = (metrics.memorization_rate(samples, everything) for samples in (self.results, held_out))
        return {"memorization rate": of_results}, {"memorization rate": of_real}

    def figure(self, result: dict[str, Any], costs: list[Cost]) -> Image.Image | None:
        """Draw the cost curve of the `result`, and of pairs some samples below it; None where there is neither."""
        title, drawn = caption(self.config, f"{self.count} samples, step {result['step']}"), []
        if costs:
            drawn.append(cost_figure(costs, cheapest(costs), result["real"]["frechet"], title))
        if (truth := self.evaluation_set.truth) is not None:
            rows = {"source": self.evaluation_set.source.samples, "result": self.results, "truth": truth}
            drawn.append(sheet([(name, images[:SHOWN]) for name, images in rows.items()], title))
        return stacked(drawn) if drawn else None

    def result(self, costs: list[Cost]) -> dict[str, Any]:
        """Return the contents of `evaluation.json`. All but "timing" is the same the next time."""
        config, folder = self.config, weights.weights_folder(self.run.folder)
        result: dict[str, Any] = {
            "pipeline": config.name,
            "data": weights.describe(config)["data"],
            "weights_sha256": weights.digest(folder),
            "step": weights.step_of(folder),
            "count": self.count,
            "seed": self.evaluation_set.seed,
            "sampling": self.pipeline.sampling,
            "nfe": self.pipeline.nfe,
        }
        if self.extractor is None:
            result["features"] = f"none: {config.target.kind} has no classes, and images too small for an encoder"
        elif self.extractor.told:
            result["features"] = self.extractor.told
        for ours, real in (self.target_figures(), self.memorization_figures()):
            if ours:
                result["target"], result["real"] = result.get("target", {}) | ours, result.get("real", {}) | real
        if copied := self.source_figures():
            result["untranslated"] = copied
        probabilities, maps = self.extracted[1] if self.reference else None, self.extractor and self.extractor.maps
        samples = self.evaluation_set
        pairs = translation_figures(self.pipeline, samples, self.results, probabilities, maps)
        result["translation"], result["shuffled"] = pairs
        if "source found" in pairs[0]:
            partners = {} if samples.candidates is None else {"partner found": len(samples.candidates)}
            result["among"] = {"source found": self.count} | partners
        if any(variants := variant_figures(self.pipeline, samples, maps)):
            result["variants"], result["beside"] = variants
        if told := notes(result):
            result["notes"] = told
        if costs:
            result["cost"] = [cost._asdict() for cost in costs]
        milliseconds = 1000 * self.timed_results[1] / self.count
        return result | {"timing": {"milliseconds an image": milliseconds, "machine": describe_machine()}}


def sample_count(run: RunFolder, options: EvaluateOptions) -> int:
    """Return how many results to measure: `options.count`, or COUNT where the data allow, else as many as they allow.

    Each result needs a test sample of the source, and a training sample of the target for the real figures beside it.
    Raises UserError where there are fewer of either than asked for, or fewer than MIN_SAMPLES in any split.
    """
    sizes = {"test samples of the source": run.test[0].size, "training samples of the target": run.train[1].size}
    for what, size in {**sizes, "test samples of the target": run.test[1].size}.items():
        if size is not None and size < MIN_SAMPLES:
            raise UserError(f"evaluate: got {size} {what}, expected at least {MIN_SAMPLES}")
    for what, size in sizes.items():
        if options.count is not None and size is not None and options.count > size:
            raise UserError(f"--count: got {options.count}, expected at most the {size} {what}")
    return options.count or min([COUNT, *(size for size in sizes.values() if size is not None)])
