"""The verb `features`: a classifier in a file, which `evaluate` and others then find."""

from pathlib import Path

import pytest
import torch

from flowferry import launch
from flowferry.configs.components import SyntheticDigitsConfig
from flowferry.pipelines.evaluation.classifier import load, train_classifier, trained_classifier
from flowferry.pipelines.train import Trainer
from tiny_runs import config_of


@pytest.mark.parametrize(("of", "kind"), [("target", "synthetic-digits"), ("source", "synthetic-garments")])
def test_the_classifier_of_a_run_s_data_is_where_evaluate_looks_for_it(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, of: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Trainer(config_of(tiny, 1), Path("runs/tiny"), data_root=tmp_path).run() == 0
    with caplog.at_level("INFO", logger="flowferry"):
        assert launch.main(["features", "--pipeline", "runs/tiny", "--of", of]) == 0
    file = Path("runs", "classifiers", f"{kind}-64-1x28x28.safetensors")
    assert f"{file}: correct on " in caplog.text
    kept = load(file, (1, 28, 28), torch.device("cpu"))
    assert kept.accuracy > 0.5 and kept.classifier.head.out_features == 10


def test_a_file_of_another_name_is_written_where_it_is_asked_for(tmp_path: Path, tiny, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(train_classifier.__kwdefaults__, "epochs", 1)
    assert Trainer(config_of(tiny, 1), Path("runs/tiny"), data_root=tmp_path).run() == 0
    assert launch.main(["features", "--pipeline", "runs/tiny", "--output", "mine.safetensors"]) == 0
    assert launch.main(["features", "--pipeline", "runs/tiny", "--output", "folder/"]) == 0
    (in_folder,) = Path("folder").iterdir()
    assert in_folder.read_bytes() == Path("mine.safetensors").read_bytes()
    assert not Path("runs", "classifiers").exists()
    where = {"data_root": tmp_path, "device": torch.device("cpu")}
    mine = load(Path("mine.safetensors"), (1, 28, 28), where["device"])
    again = trained_classifier(SyntheticDigitsConfig(count=64), (1, 28, 28), num_classes=10, folder=tmp_path, **where)
    assert mine.sha256 == again.sha256  # the same data and seed give the same file
