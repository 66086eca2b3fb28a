"""Labels that nobody asks for: read off the source by a classifier that comes with the weights."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.checks import UserError
from configs.cli import EvaluateOptions, SampleOptions, TranslateOptions
from configs.parts import GaussianConfig
from configs.presets import PIPELINES
from configs.schema import Config
from datasets import build_samplers
from pipelines import Pipeline, sample, training
from pipelines.classifier import Classifier, accuracy, halved, trained_classifier
from pipelines.evaluate import Evaluation
from pipelines.runs import Run
from pipelines.sheets import samples_sheet
from pipelines.trainer import Trainer
from pipelines.translator import Translator

CPU = torch.device("cpu")
NULL = 10


class Towards(nn.Module):
    """The velocity is the label that the network was told, in tenths."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.unit * label[:, None, None, None].expand_as(x)


class Brightness(Classifier):
    """Class k for images of brightness −k/10."""

    def forward(self, images: Tensor) -> Tensor:
        raise AssertionError("what is seen goes through features and head")

    def features(self, images: Tensor) -> Tensor:
        places = torch.arange(10, device=images.device) / 10
        return -(images.mean(dim=(1, 2, 3))[:, None] + places).abs()


def brightness() -> Brightness:
    reader = Brightness(channels=1, classes=NULL)
    reader.head = nn.Linear(10, 10, bias=False)
    reader.head.weight.data = torch.eye(10)
    return reader


@pytest.fixture
def reading() -> Pipeline:
    """Carries an image of brightness −k/10 to k/10 above it, where the label k is read off it."""
    return Pipeline(PIPELINES["fashion2mnist-labels"], Towards(), brightness())


def stirred(pipeline: Pipeline) -> Pipeline:
    """With no weight left at zero, as they begin, so that labels count."""
    g = torch.Generator().manual_seed(0)
    for parameter in pipeline.model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return pipeline


def bright(classes: list[int]) -> Tensor:
    return -torch.tensor(classes)[:, None, None, None].expand(-1, 1, 28, 28) / 10


def test_what_is_not_asked_for_is_read_off_the_source(reading: Pipeline) -> None:
    x = bright([3, 0, 9, 3])
    for batch_size in (1, 3, 256):
        torch.testing.assert_close(reading.translate(x, batch_size=batch_size), torch.zeros_like(x))
    *_, end = reading.trajectory(x)
    torch.testing.assert_close(end, torch.zeros_like(x))


def test_what_is_asked_for_comes_before_what_is_read(reading: Pipeline) -> None:
    x, asked = bright([3, 0, 9]), torch.tensor([1, 5, 9])
    expected = x + asked[:, None, None, None] / 10
    torch.testing.assert_close(reading.translate(x, asked), expected)
    with pytest.raises(UserError, match="labels"):
        reading.translate(x, torch.tensor([1, 5, 11]))


def test_nothing_is_read_off_the_target(reading: Pipeline) -> None:
    *_, start = reading.trajectory(bright([3, 4]), reverse=True)
    torch.testing.assert_close(start, bright([3, 4]) - NULL / 10)


def test_the_label_stays_read_with_another_solver(reading: Pipeline) -> None:
    x = bright([2, 7])
    torch.testing.assert_close(reading.translate(x, solver="heun", steps=3), torch.zeros_like(x))


# --- kept with the weights ------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny: Callable[..., Config], tmp_path: Path) -> Pipeline:
    """Saved in tmp_path; the reader is in half precision, as classifiers are kept."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = stirred(Pipeline(tiny("fashion2mnist-labels")))
    assert pipeline.reader is not None
    pipeline.reader.load_state_dict(halved(pipeline.reader.state_dict()))
    pipeline.save_pretrained(tmp_path)
    return pipeline


def test_the_reader_comes_back_with_the_weights(saved: Pipeline, tmp_path: Path) -> None:
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    back = Pipeline.from_pretrained(tmp_path, device="cpu")
    assert back.reader is not None and saved.reader is not None
    for name, tensor in saved.reader.state_dict().items():
        assert torch.equal(back.reader.state_dict()[name], tensor), name
    read, again = saved.read(x), back.read(x)
    assert read is not None and again is not None and torch.equal(read, again)
    torch.testing.assert_close(back.translate(x, steps=2), saved.translate(x, read, steps=2), rtol=1e-4, atol=1e-4)
    assert (saved.translate(x, steps=2) - saved.translate(x, (read + 1) % 10, steps=2)).abs().max() > 0.01


@pytest.mark.parametrize("problem", ["missing", "unexpected", "not finite"])
def test_a_reader_that_does_not_fit_is_refused(saved: Pipeline, tmp_path: Path, problem: str) -> None:
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    if problem == "missing":
        del tensors["reader.head.bias"]
    elif problem == "unexpected":
        tensors["reader.more"] = torch.zeros(1)
    else:
        tensors["reader.head.bias"][0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(UserError, match=rf"reader.*{problem}"):
        Pipeline.from_pretrained(tmp_path)


def test_weights_of_a_pipeline_that_reads_nothing_hold_no_reader(saved: Pipeline, tmp_path: Path) -> None:
    Pipeline(replace(saved.config, read_labels=False)).save_pretrained(tmp_path / "plain")
    plain = load_file(tmp_path / "plain" / "model.safetensors")
    assert not [name for name in plain if name.startswith("reader.")]
    reads = load_file(tmp_path / "model.safetensors")
    save_file(plain | {n: t for n, t in reads.items() if n.startswith("reader.")}, tmp_path / "plain/model.safetensors")
    with pytest.raises(UserError, match=r"unexpected: reader\."):
        Pipeline.from_pretrained(tmp_path / "plain")


# --- what does not go together --------------------------------------------------------------------------


def test_labels_can_only_be_read_for_a_network_that_is_told_them() -> None:
    with pytest.raises(UserError, match="read_labels: found 0 classes"):
        replace(PIPELINES["fashion2mnist"], read_labels=True)
    with pytest.raises(UserError, match=r"read_labels: .*shape \(2,\), accepted are images"):
        replace(PIPELINES["moons"], classes=2, read_labels=True)


def test_labels_can_only_be_read_off_a_source_that_has_them(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny("fashion2mnist-labels", source=GaussianConfig(), coupling="independent")
    with pytest.raises(UserError, match="read_labels: gaussian has 0 classes"):
        build_samplers(config, data_root=tmp_path, split="train", device=CPU)


# --- trained, sampled, measured -------------------------------------------------------------------------


@pytest.fixture
def run(tiny: Callable[..., Config], tmp_path: Path) -> Run:
    """Two steps, with a classifier of the drawn garments that is trained for it, once."""
    config = tiny("fashion2mnist-labels", coupling_batches=1)
    train = replace(config.train, batch_size=8, max_steps=2, epochs=1, minutes=None, checkpoint_epochs=0)
    folder = tmp_path / "runs" / "labels"
    assert training.run(Trainer(replace(config, train=train), folder, data_root=tmp_path)) == 0
    return Run.load(folder, tmp_path)


def test_a_run_keeps_the_classifier_of_its_source(run: Run, tmp_path: Path) -> None:
    config = run.config
    folder = run.folder.parent / "classifiers"
    judge = trained_classifier(config.source, config.shape, classes=10, data_root=tmp_path, folder=folder, device=CPU)
    assert [file.name for file in folder.iterdir()] == ["drawn-garments-64-1x28x28.safetensors"]  # no other was trained
    images, labels = run.test[0].draw(64, seed=0, step=0)
    read = run.pipeline.read(images)
    assert labels is not None and read is not None
    assert (read == labels).double().mean().item() == pytest.approx(accuracy(judge.classifier, images, labels))
    assert (read == labels).double().mean() > 0.5  # of ten classes

    # Nobody is asked for classes: sources of any class, and no columns of classes.
    options = SampleOptions(pipeline=str(run.folder), count=3, output=tmp_path / "out", data_root=tmp_path)
    assert sample.run(options, run.folder) == 0
    assert sorted(file.name for file in options.output.iterdir()) == [  # type: ignore[union-attr]
        *(f"0000{i}.png" for i in range(3)),
        "sheet.png",
    ]
    asked = replace(options, labels="4", output=tmp_path / "asked")
    assert sample.run(asked, run.folder) == 0
    assert (tmp_path / "asked" / "00000-4.png").is_file()
    assert samples_sheet(run.pipeline, run.test[0], "").height == 20 + 6 * 58  # sources and results of 48 in rows of 16

    stirred(run.pipeline)
    translator = Translator(run.pipeline, TranslateOptions(pipeline="", input=tmp_path, output=tmp_path))
    ours = run.pipeline.translate(images[:5], read[:5], batch_size=32)
    torch.testing.assert_close(translator.carry(list(images[:5])), ours, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(translator.way(images[:5])[-1].clamp(-1, 1), ours, rtol=1e-3, atol=1e-3)
    assert (ours - run.pipeline.translate(images[:5], (read[:5] + 1) % 10)).abs().max() > 0.01

    evaluation = Evaluation.of(run, EvaluateOptions(pipeline=str(run.folder), count=64, data_root=tmp_path))
    kept, chance = evaluation.translation_side()
    assert "asked class" not in kept
    assert kept["label read"] > 0.5 > chance["label read"]
    assert evaluation.evaluation_set.asked is None


def test_a_dry_run_trains_no_classifier(tiny: Callable[..., Config], tmp_path: Path) -> None:
    trainer = Trainer(tiny("fashion2mnist-labels", coupling_batches=1), tmp_path / "run", data_root=tmp_path)
    assert training.dry_run(trainer) == 0
    assert not list(tmp_path.iterdir())


def test_a_run_that_goes_on_keeps_its_reader(run: Run, tmp_path: Path) -> None:
    """Whatever has become of the classifier that it was copied from."""
    for file in (run.folder.parent / "classifiers").iterdir():
        file.unlink()
    longer = replace(run.config, train=replace(run.config.train, max_steps=3))
    assert training.run(Trainer(longer, run.folder, data_root=tmp_path)) == 0
    assert not list((run.folder.parent / "classifiers").iterdir())
    again = Run.load(run.folder, tmp_path)
    assert again.step == 3
    assert again.pipeline.reader is not None and run.pipeline.reader is not None
    kept = run.pipeline.reader.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in again.pipeline.reader.state_dict().items())


def test_asked_to_leave_while_it_learns_to_read_it_leaves_at_once(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(tiny("fashion2mnist-labels", coupling_batches=1), tmp_path / "run", data_root=tmp_path)

    def asked(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was to end it there and then")

    monkeypatch.setattr("pipelines.reading.trained_classifier", asked)
    assert training.run(trainer) == 143
    assert trainer.step == 0 and not (tmp_path / "run" / "model").exists()
