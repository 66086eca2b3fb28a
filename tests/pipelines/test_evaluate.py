"""The verb `evaluate`, on synthetic data and networks that were never trained."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from flowferry import Pipeline
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.options import EvaluateOptions
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config, read_config
from flowferry.configs.validation import UserError
from flowferry.launch import main
from flowferry.pipelines import evaluate
from flowferry.pipelines.evaluation.pairs import translation_figures
from flowferry.pipelines.evaluation.reference import Figures
from flowferry.pipelines.evaluation.solver_search import Cost, cheapest
from flowferry.pipelines.run_folder import RunFolder
from flowferry.pipelines.storage import weights
from flowferry.pipelines.storage.files import sha256, write_json
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training.logger import read_metrics


def run_of(config: Config, folder: Path) -> Path:
    """Write a run's folder, as after no training at all, and return it."""
    torch.manual_seed(0)
    Pipeline(config).save_pretrained(folder / "model")
    write_json(folder / "config.json", weights.describe(config))
    return folder


def asked(folder: Path, *more: str) -> list[str]:
    return ["evaluate", "--pipeline", str(folder), "--data-root", str(folder), *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs; the classifiers that are trained for one serve the next."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def translator(tiny: Callable[..., Config], runs: Path) -> Path:
    return run_of(tiny("fashion2mnist"), runs / "fashion2mnist")


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / weights.EVALUATION).read_text())


# --- what is measured -------------------------------------------------------------------------------------


def test_a_translation_is_measured_on_both_sides(translator: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(translator, "--count", "64")) == 0
    result, printed = result_of(translator), capsys.readouterr().out
    some = {"frechet", "kernel", "precision", "coverage", "memorization rate"}
    assert set(result["target"]) == set(result["real"]) >= some
    kept = {"distance", "mutual information", "round trip", "source found"}
    assert set(result["translation"]) == set(result["shuffled"]) == kept
    assert result["among"] == {"source found": 64} and result["translation"]["source found"] > 0.5
    assert result["untranslated"]["frechet"] > result["real"]["frechet"]
    assert (result["count"], result["data"]) == (64, weights.SYNTHETIC)
    assert result["weights_sha256"] == weights.digest(translator)  # although another solver is kept with them by now
    (file,) = (translator.parent / "classifiers").glob("synthetic-digits*")
    assert result["features"]["sha256"] == sha256(file)
    assert 0 <= result["target"]["class entropy"] <= math.log(10) + 1e-9
    shares = [value for name, value in result["real"].items() if name.startswith("share of class")]
    assert sum(shares) == pytest.approx(1)
    for name, value in {**result["target"], **result["translation"]}.items():
        assert f"{name} " in printed and f"{value:.4g}" in printed
    # Synthetic digits are far nearer to synthetic digits than what an untrained network makes of garments.
    assert result["real"]["frechet"] < result["target"]["frechet"] / 3
    assert result["real"]["precision"] > result["target"]["precision"]
    assert result["translation"]["distance"] < result["shuffled"]["distance"]  # an untrained network changes little


def test_the_cheapest_setting_is_kept_with_the_weights_and_the_figures_are_of_it(translator: Path) -> None:
    assert main(asked(translator, "--count", "32")) == 0
    result = result_of(translator)
    chosen = cheapest([Cost(**cost) for cost in result["cost"]])
    kept = Pipeline.from_pretrained(translator).config.solver
    assert (kept.name, kept.num_steps) == (chosen.solver, chosen.steps)
    assert result["nfe"] == chosen.nfe
    assert result["target"]["frechet"] == pytest.approx(chosen.frechet)
    begun = read_config(translator / "config.json")
    assert begun.solver == PIPELINES["fashion2mnist"].solver  # what training goes on with is as it was
    assert Image.open(translator / "evaluation.png").size[0] > 300


def test_training_logs_the_distance_that_evaluate_measures(tiny: Callable[..., Config], runs: Path) -> None:
    config = tiny("fashion2mnist")
    train = replace(config.train, minutes=None, max_steps=2, batch_size=16, eval_samples=32, threads=1)
    config = replace(config, train=train)
    assert Trainer(config, runs / "watched", data_root=runs).run() == 0
    assert main(asked(runs / "watched", "--count", "32", "--skip-cost")) == 0
    (logged,) = [row["eval/frechet"] for row in read_metrics(runs / "watched" / "metrics.jsonl") if "eval/loss" in row]
    assert result_of(runs / "watched")["target"]["frechet"] == pytest.approx(logged)


def test_training_cannot_measure_more_than_there_is(tiny: Callable[..., Config], runs: Path) -> None:
    config = tiny("fashion2mnist")
    config = replace(config, train=replace(config.train, eval_samples=1000))
    with pytest.raises(UserError, match="eval-samples: got 1000, expected at most the 64 of the test split"):
        Trainer(config, runs / "watched", data_root=runs)


def test_a_second_run_gives_the_same_figures(translator: Path) -> None:
    found = []
    for _ in range(2):
        assert main(asked(translator, "--count", "32")) == 0
        found.append({name: value for name, value in result_of(translator).items() if name != "timing"})
    assert found[0] == found[1]
    assert main(asked(translator, "--count", "32", "--seed", "1", "--skip-cost")) == 0
    other = result_of(translator)
    assert other["sampling"] == found[0]["sampling"] and other["target"] != found[0]["target"]


def test_a_setting_that_is_asked_for_is_measured_and_nothing_is_kept(translator: Path) -> None:
    before = sha256(translator / "model" / "config.json")
    assert main(asked(translator, "--count", "32", "--solver", "heun", "--steps", "3")) == 0
    result = result_of(translator)
    assert result["nfe"] == 5 and "heun, 3 steps" in result["sampling"] and "cost" not in result
    assert sha256(translator / "model" / "config.json") == before


def test_the_guidance_that_is_asked_for_is_not_kept(tiny: Callable[..., Config], runs: Path) -> None:
    folder = run_of(tiny("noise2mnist-cfg"), runs / "guided")
    assert main(asked(folder, "--count", "16", "--guidance", "4")) == 0
    assert "w = 4" in result_of(folder)["sampling"] and "cost" in result_of(folder)
    assert Pipeline.from_pretrained(folder).config.solver.guidance == 1.5


def test_the_figures_travel_with_exported_weights(translator: Path, tmp_path: Path) -> None:
    assert main(asked(translator, "--count", "32", "--skip-cost")) == 0
    assert main(["export", "--pipeline", str(translator), "--output", str(tmp_path)]) == 0
    result = result_of(translator)
    assert result_of(tmp_path) == result
    card = (tmp_path / "README.md").read_text()
    assert f"| measured: Fréchet distance | {result['target']['frechet']:g} |" in card
    assert f"| measured: Fréchet distance of as many real images | {result['real']['frechet']:g} |" in card
    assert f"| measured: features | of the classifier {result['features']['sha256'][:12]}, right on" in card
    assert f"| measured: their sampling | {result['sampling']} |" in card


def test_figures_that_an_older_version_measured_of_these_weights_travel(translator: Path, tmp_path: Path) -> None:
    """It recorded the hash of the whole file."""
    assert main(asked(translator, "--count", "32", "--skip-cost")) == 0
    result = result_of(translator) | {"weights_sha256": sha256(translator / "model" / weights.WEIGHTS)}
    for told, travels in ((result, True), (result | {"weights_sha256": "0" * 64}, False), ({"count": 1}, False)):
        write_json(translator / weights.EVALUATION, told)
        assert main(["export", "--pipeline", str(translator), "--output", str(tmp_path / str(travels))]) == 0
        assert (tmp_path / str(travels) / weights.EVALUATION).exists() == travels


def test_figures_of_other_weights_do_not_travel(translator: Path, tmp_path: Path) -> None:
    assert main(asked(translator, "--count", "32", "--skip-cost")) == 0
    torch.manual_seed(1)
    Pipeline(read_config(translator / "config.json")).save_pretrained(translator / "model")
    assert main(["export", "--pipeline", str(translator), "--output", str(tmp_path)]) == 0
    assert not (tmp_path / weights.EVALUATION).exists()
    assert "measured" not in (tmp_path / "README.md").read_text()


def test_tensorboard_has_the_figures(translator: Path) -> None:
    shutil.rmtree(translator / "tensorboard", ignore_errors=True)
    (translator / "evaluation.png").touch()
    assert main(asked(translator, "--count", "32", "--skip-cost")) == 0
    events = EventAccumulator(str(translator / "tensorboard"))
    events.Reload()
    told = result_of(translator)
    last = events.Scalars("evaluation/frechet")[-1]
    assert last.value == pytest.approx(told["target"]["frechet"], rel=1e-6)
    assert {"evaluation/round_trip", "evaluation of real samples/frechet"} <= set(events.Tags()["scalars"])
    (text,) = events.Tensors("evaluation/text_summary")[-1].tensor_proto.string_val
    assert told["features"]["sha256"] in text.decode() and told["weights_sha256"] in text.decode()
    assert not (translator / "evaluation.png").exists()  # of another evaluation


def test_classes_that_were_asked_for_are_counted(tiny: Callable[..., Config], runs: Path) -> None:
    folder = run_of(tiny("noise2mnist-cfg"), runs / "cfg")
    assert main(asked(folder, "--count", "40", "--steps", "2")) == 0
    result = result_of(folder)
    assert 0 <= result["translation"]["asked class"] <= 1
    assert "mutual information" not in result["translation"]  # noise has no labels
    assert result["nfe"] == 4  # two steps, two forwards each


class Oracle:
    """A pipeline that gives what the samplers hold: the target image of the same class."""

    def __init__(self, pipeline: Pipeline, answers: Callable[[Tensor], Tensor]) -> None:
        self.pipeline, self.answers = pipeline, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipeline, name)

    def translate(self, x: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        return self.answers(x)

    def invert(self, x: Tensor, labels: Tensor | None = None, **options: Any) -> Tensor:
        return x


def evaluation_of(folder: Path, answers: Callable[..., Tensor], **options: Any) -> evaluate.Evaluation:
    told = EvaluateOptions(pipeline=str(folder), data_root=folder, **options)
    made = evaluate.Evaluation.of(RunFolder.load(folder, folder), told)
    return replace(made, pipeline=Oracle(made.pipeline, answers))  # type: ignore[arg-type]


def pair_figures(evaluation: evaluate.Evaluation) -> tuple[Figures, Figures]:
    probabilities = evaluation.extracted[1]
    return translation_figures(evaluation.pipeline, evaluation.evaluation_set, evaluation.results, probabilities)


def test_perfect_answers_have_perfect_figures(tiny: Callable[..., Config], runs: Path) -> None:
    folder = run_of(tiny("fashion2mnist", coupling="label"), runs / "labels")
    plain = evaluation_of(folder, lambda x: x, count=60)
    digits = plain.run.train[1]
    labels = plain.evaluation_set.source.labels
    assert labels is not None
    right = digits.sample_by_label(labels, seed=0, step=0).samples  # type: ignore[attr-defined]
    perfect = evaluation_of(folder, lambda x: right, count=60)
    kept, chance = pair_figures(perfect)
    assert kept["same label"] > 0.9 > 0.4 > chance["same label"]
    assert kept["mutual information"] > 2 * chance["mutual information"]
    target, _ = perfect.target_figures()
    assert perfect.memorization_figures()[0]["memorization rate"] == 1  # they are training images
    assert target["frechet"] < plain.target_figures()[0]["frechet"]
    back = pair_figures(evaluation_of(folder, lambda x: x, count=60))[0]
    assert back["round trip"] == 0 and back["distance"] == 0


# --- without a classifier ---------------------------------------------------------------------------------


def test_points_in_the_plane_are_their_own_features(tiny: Callable[..., Config], runs: Path) -> None:
    folder = run_of(tiny("moons"), runs / "moons")
    assert main(asked(folder, "--count", "100", "--steps", "4")) == 0
    result = result_of(folder)
    assert "features" not in result and "memorization rate" not in result["target"]
    assert result["real"]["frechet"] < 0.1 < result["target"]["frechet"]


def test_images_without_classes_are_seen_by_an_encoder_that_needs_none(
    tiny: Callable[..., Config], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = runs / "photos"
    photos.mkdir(exist_ok=True)
    for index in range(20):
        Image.new("RGB", (64, 64), (10 * index, 100, 50)).save(photos / f"{index}.png")
    config = tiny("folders")
    config = replace(config, target=ImageFolderConfig(root=str(photos)))
    folder = run_of(config, runs / "unlabeled")
    assert main(asked(folder, "--count", "16", "--steps", "1")) == 0
    result = result_of(folder)
    (file,) = (runs / "classifiers").glob("encoder-image-folder-*")
    assert result["features"] == {"sha256": sha256(file), "trained on": "the target's images, without labels"}
    assert set(result["target"]) == set(result["real"]) >= {"frechet", "kernel", "coverage", "memorization rate"}
    assert result["real"]["frechet"] < result["target"]["frechet"] and "source found" in result["translation"]
    assert f"encoder {sha256(file)[:12]}, trained on the target's images" in capsys.readouterr().out


def test_one_class_is_as_good_as_none(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """All images in one sub-folder: a classifier of them would have nothing to learn, and an encoder is taken."""
    (tmp_path / "photos" / "all").mkdir(parents=True)
    for index in range(20):
        Image.new("RGB", (64, 64), (10 * index, 100, 50)).save(tmp_path / "photos" / "all" / f"{index}.png")
    config = replace(tiny("folders"), target=ImageFolderConfig(root=str(tmp_path / "photos")))
    folder = run_of(config, tmp_path / "runs" / "one class")
    assert main(asked(folder, "--steps", "1")) == 0  # as many as there are
    result = result_of(folder)
    assert "accuracy" not in result["features"] and "frechet" in result["target"]
    assert result["count"] == 18  # training images of the target, which the floor is of


def test_images_too_small_for_an_encoder_are_reported_so(tiny: Callable[..., Config], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index in range(20):
        Image.new("RGB", (8, 8), (10 * index, 100, 50)).save(tmp_path / "photos" / f"{index}.png")
    config = replace(tiny("folders", shape=(3, 8, 8)), target=ImageFolderConfig(root=str(tmp_path / "photos")))
    folder = run_of(config, tmp_path / "runs" / "small")
    assert main(asked(folder, "--count", "16", "--steps", "1")) == 0
    result = result_of(folder)
    assert result["features"].startswith("none: image-folder has no classes, and images too small")
    assert set(result["target"]) == {"memorization rate"} and result["translation"]["distance"] > 0
    watched = replace(config, train=replace(config.train, eval_samples=16))
    with pytest.raises(UserError, match="eval-samples: got 16 and images of image-folder without classes that are end"):
        Trainer(watched, tmp_path / "runs" / "watched", data_root=tmp_path)


def test_pairs_are_shown_with_their_truth_and_what_copies_is_told(
    tiny: Callable[..., Config], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An untrained network changes little, so that its results are no nearer to the truth than noisy digits are."""
    folder = run_of(tiny("denoise-mnist"), runs / "denoise")
    copied = evaluation_of(folder, lambda x: x, count=32)
    result = copied.result([])
    assert result["translation"]["psnr"] == result["translation"]["psnr of the source"]
    assert any("no nearer to their truth than the source is: psnr" in note for note in result["notes"])
    assert result["among"] == {"source found": 32, "partner found": 64}
    figure = copied.figure(result, [])
    assert figure is not None and figure.height == 20 + 3 * 58
    perfect = evaluation_of(folder, lambda x: copied.evaluation_set.truth, count=32)  # type: ignore[arg-type, return-value]
    assert "notes" not in perfect.result([])


def test_too_few_for_any_figure_is_refused(
    tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(6):
        (tmp_path / "photos" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (10 * index, 100, 50)).save(tmp_path / "photos" / str(index % 2) / f"{index}.png")
    config = replace(tiny("folders"), target=ImageFolderConfig(root=str(tmp_path / "photos")))
    assert main(asked(run_of(config, tmp_path / "runs" / "few"), "--steps", "1")) == 2
    assert "got 1 test samples of the target, expected at least 2" in capsys.readouterr().err


def test_more_than_there_is_is_refused(translator: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(translator, "--count", "1000")) == 2
    assert "--count: got 1000, expected at most the 64 test samples of the source" in capsys.readouterr().err
    with pytest.raises(UserError, match="count: got 3, expected a number ≥ 16"):
        EvaluateOptions(pipeline="x", count=3)
