"""Labels that nobody asks for: inferred from the source by a classifier that comes with the weights."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowferry import Pipeline
from flowferry.configs.components import GaussianConfig
from flowferry.configs.images import ReadConfig
from flowferry.configs.options import EvaluateOptions, SampleOptions
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers
from flowferry.models.classifier import Classifier, accuracy
from flowferry.pipelines import sample
from flowferry.pipelines.evaluate import Evaluation
from flowferry.pipelines.evaluation.classifier import trained_classifier
from flowferry.pipelines.evaluation.pairs import translation_figures
from flowferry.pipelines.flow.conditions import Condition
from flowferry.pipelines.pretrained import LABEL_CLASSIFIER
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage.weights import to_half
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.translation.transforms import Translation
from flowferry.pipelines.translation.translator import Translator
from flowferry.pipelines.visualization.grids import samples_sheet

CPU = torch.device("cpu")
NULL = 10


class Towards(nn.Module):
    """The velocity is the label of the condition, in tenths."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.label is not None
        return self.unit * condition.label[:, None, None, None].expand_as(x)


class Brightness(Classifier):
    """Class k for images of brightness −k/10."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("labels are inferred through features and head")

    def features(self, images: Tensor) -> Tensor:
        places = torch.arange(10, device=images.device) / 10
        return -(images.mean(dim=(1, 2, 3))[:, None] + places).abs()


def brightness() -> Brightness:
    classifier = Brightness(channels=1, num_classes=NULL)
    classifier.head = nn.Linear(10, 10, bias=False)
    classifier.head.weight.data = torch.eye(10)
    return classifier


@pytest.fixture
def inferring() -> Pipeline:
    """Carry an image of brightness −k/10 to k/10 above it, where the label k is inferred from it."""
    pipeline = Pipeline(PIPELINES["fashion2mnist-labels"], Towards(), brightness())
    return pipeline.using(guidance=1, source_noise=0)


def stirred(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with no weight left at zero, where they begin, so that labels count."""
    g = torch.Generator().manual_seed(0)
    for parameter in pipeline.model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return pipeline


def bright(classes: list[int]) -> Tensor:
    return -torch.tensor(classes)[:, None, None, None].expand(-1, 1, 28, 28) / 10


def test_what_is_not_asked_for_is_inferred_from_the_source(inferring: Pipeline) -> None:
    x = bright([3, 0, 9, 3])
    for batch_size in (1, 3, 256):
        torch.testing.assert_close(inferring.translate(x, batch_size=batch_size), torch.zeros_like(x))
    *_, end = inferring.trajectory(x)
    torch.testing.assert_close(end, torch.zeros_like(x))


def test_what_is_asked_for_comes_before_what_is_inferred(inferring: Pipeline) -> None:
    x, asked = bright([3, 0, 9]), torch.tensor([1, 5, 9])
    expected = x + asked[:, None, None, None] / 10
    torch.testing.assert_close(inferring.translate(x, asked), expected)
    with pytest.raises(UserError, match="labels"):
        inferring.translate(x, torch.tensor([1, 5, 11]))


def test_nothing_is_inferred_from_the_target(inferring: Pipeline) -> None:
    *_, start = inferring.trajectory(bright([3, 4]), reverse=True)
    torch.testing.assert_close(start, bright([3, 4]) - NULL / 10)


def test_the_label_stays_inferred_with_another_solver(inferring: Pipeline) -> None:
    x = bright([2, 7])
    torch.testing.assert_close(inferring.translate(x, solver="heun", steps=3), torch.zeros_like(x))


# --- kept with the weights ------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny: Callable[..., Config], tmp_path: Path) -> Pipeline:
    """Return a pipeline that is saved in tmp_path, its label classifier in half precision, as classifiers are kept."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = stirred(Pipeline(tiny("fashion2mnist-labels")))
    assert pipeline.label_classifier is not None
    pipeline.label_classifier.load_state_dict(to_half(pipeline.label_classifier.state_dict()))
    pipeline.save_pretrained(tmp_path)
    return pipeline


def test_the_label_classifier_comes_back_with_the_weights(saved: Pipeline, tmp_path: Path) -> None:
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    back = Pipeline.from_pretrained(tmp_path, device="cpu")
    assert back.label_classifier is not None and saved.label_classifier is not None
    for name, tensor in saved.label_classifier.state_dict().items():
        assert torch.equal(back.label_classifier.state_dict()[name], tensor), name
    inferred, again = saved.inferred_labels(x), back.inferred_labels(x)
    assert inferred is not None and again is not None and torch.equal(inferred, again)
    torch.testing.assert_close(back.translate(x, steps=2), saved.translate(x, inferred, steps=2), rtol=1e-4, atol=1e-4)
    assert (saved.translate(x, steps=2) - saved.translate(x, (inferred + 1) % 10, steps=2)).abs().max() > 0.01


@pytest.mark.parametrize("problem", ["missing", "unexpected", "not finite"])
def test_a_label_classifier_that_does_not_fit_is_refused(saved: Pipeline, tmp_path: Path, problem: str) -> None:
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    if problem == "missing":
        del tensors[LABEL_CLASSIFIER + "head.bias"]
    elif problem == "unexpected":
        tensors[LABEL_CLASSIFIER + "more"] = torch.zeros(1)
    else:
        tensors[LABEL_CLASSIFIER + "head.bias"][0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(UserError, match=rf"label classifier.*{problem}"):
        Pipeline.from_pretrained(tmp_path)


def test_weights_of_a_pipeline_that_infers_nothing_hold_no_label_classifier(saved: Pipeline, tmp_path: Path) -> None:
    Pipeline(replace(saved.config, infer_labels=False)).save_pretrained(tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert not [name for name in plain if name.startswith(LABEL_CLASSIFIER)]
    infers = load_file(tmp_path / "model.safetensors")
    own = {name: tensor for name, tensor in infers.items() if name.startswith(LABEL_CLASSIFIER)}
    assert own
    save_file(plain | own, tmp_path / "plain" / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected: label_classifier\."):
        Pipeline.from_pretrained(tmp_path / "plain")


# --- what does not go together --------------------------------------------------------------------------


def test_labels_can_only_be_inferred_for_a_network_that_takes_them() -> None:
    with pytest.raises(UserError, match="infer_labels: got 0 classes"):
        replace(PIPELINES["fashion2mnist"], infer_labels=True)
    with pytest.raises(UserError, match=r"infer_labels: got .*shape \(2,\), expected images"):
        replace(PIPELINES["moons"], num_classes=2, infer_labels=True)


def test_labels_can_only_be_inferred_from_a_source_that_has_them(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("fashion2mnist-labels", source=GaussianConfig(), coupling="independent", solver=SolverConfig())
    with pytest.raises(UserError, match="infer_labels: got 0 classes of gaussian"):
        build_samplers(config, data_root=tmp_path, split="train", device=CPU)


# --- trained, sampled, measured -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, and of the classifier of synthetic garments that was trained for it, once."""
    config = tiny("fashion2mnist-labels", coupling_batches=1)
    train = replace(config.train, batch_size=8, max_steps=2, epochs=1, minutes=None, checkpoint_epochs=0, threads=1)
    runs = tmp_path_factory.mktemp("runs")
    assert Trainer(replace(config, train=train), runs / "labels", data_root=runs).run() == 0
    return runs


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """Return a copy of that run, with its classifier."""
    shutil.copytree(trained, tmp_path / "runs")
    return RunFolder.load(tmp_path / "runs" / "labels", tmp_path)


def test_a_run_keeps_the_classifier_of_its_source(run: RunFolder, tmp_path: Path) -> None:
    config = run.config
    folder = run.folder.parent / "classifiers"
    judge = trained_classifier(
        config.source, config.shape, num_classes=10, data_root=tmp_path, folder=folder, device=CPU
    )
    kept_files = [file.name for file in folder.iterdir()]
    assert kept_files == ["synthetic-garments-64-1x28x28.safetensors"]  # no other was trained
    images, labels = run.test[0].draw(64, seed=0, step=0)
    inferred = run.pipeline.inferred_labels(images)
    assert labels is not None and inferred is not None
    assert (inferred == labels).double().mean().item() == pytest.approx(accuracy(judge.classifier, images, labels))
    assert (inferred == labels).double().mean() > 0.5  # of ten classes

    # Nobody is asked for classes: sources of any class, and no columns of classes.
    options = SampleOptions(pipeline=str(run.folder), count=3, output=tmp_path / "out", data_root=tmp_path)
    assert sample.run(options) == 0
    assert sorted(file.name for file in options.output.iterdir()) == [  # type: ignore[union-attr]
        *(f"0000{i}.png" for i in range(3)),
        "sheet.png",
    ]
    asked = replace(options, labels="4", output=tmp_path / "asked")
    assert sample.run(asked) == 0
    assert (tmp_path / "asked" / "00000-4.png").is_file()
    assert samples_sheet(run.pipeline, run.test[0], "").height == 20 + 6 * 58  # sources and results of 48 in rows of 16

    pipeline = stirred(run.pipeline).using(source_noise=0)
    translator = Translator(transform=Translation(pipeline=pipeline), reading=ReadConfig())
    ours = pipeline.translate(images[:5], inferred[:5], batch_size=32)
    some, single = list(images[:5]), [0] * 5
    torch.testing.assert_close(torch.stack(translator.translate_batch(some, single)), ours, rtol=1e-3, atol=1e-3)
    *_, end = translator.trajectory(some, single)
    torch.testing.assert_close(end.clamp(-1, 1), ours, rtol=1e-3, atol=1e-3)
    assert (ours - pipeline.translate(images[:5], (inferred[:5] + 1) % 10)).abs().max() > 0.01

    evaluation = Evaluation.of(run, EvaluateOptions(pipeline=str(run.folder), count=64, data_root=tmp_path))
    probabilities = evaluation.extracted[1]
    kept, chance = translation_figures(run.pipeline, evaluation.evaluation_set, evaluation.results, probabilities)
    assert "asked class" not in kept
    assert kept["inferred label"] > 0.5 > chance["inferred label"]
    assert evaluation.evaluation_set.asked is None


def test_a_dry_run_trains_no_classifier(tiny: Callable[..., Config], tmp_path: Path) -> None:
    trainer = Trainer(tiny("fashion2mnist-labels", coupling_batches=1), tmp_path / "run", data_root=tmp_path)
    assert trainer.dry_run() == 0
    assert not list(tmp_path.iterdir())


def test_a_run_that_goes_on_keeps_its_label_classifier(run: RunFolder, tmp_path: Path) -> None:
    """Whatever has become of the classifier that it was copied from."""
    for file in (run.folder.parent / "classifiers").iterdir():
        file.unlink()
    longer = replace(run.config, train=replace(run.config.train, max_steps=3))
    assert Trainer(longer, run.folder, data_root=tmp_path).run() == 0
    assert not list((run.folder.parent / "classifiers").iterdir())
    again = RunFolder.load(run.folder, tmp_path)
    assert again.step == 3
    assert again.pipeline.label_classifier is not None and run.pipeline.label_classifier is not None
    kept = run.pipeline.label_classifier.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in again.pipeline.label_classifier.state_dict().items())


def test_asked_to_leave_while_its_label_classifier_is_trained_it_leaves_at_once(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny("fashion2mnist-labels", coupling_batches=1), tmp_path / "run", data_root=tmp_path)

    def asked(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was to end it there and then")

    monkeypatch.setattr("flowferry.pipelines.evaluation.classifier.trained_classifier", asked)
    assert trainer.run() == 143
    assert trainer.progress.step == 0 and not (tmp_path / "run" / "model").exists()
