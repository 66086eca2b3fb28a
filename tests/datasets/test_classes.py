"""Classes of image folders by name: datasets/classes.py, and what couplings make of them."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest
import torch
from PIL import Image

from flowferry.configs.components import ImageFolderConfig, MnistConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.classes import name_classes
from flowferry.datasets.couplings import COUPLINGS
from flowferry.datasets.image_folder import image_folder
from flowferry.datasets.pixels import to_pixels
from flowferry.pipelines.evaluation.pairs import compared_labels
from flowferry.pipelines.evaluation.reference import EvaluationSet
from flowferry.pipelines.inspect_pairs import facts

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)
COLORS = {"ant": 40, "cat": 80, "dog": 120, "fox": 160, "1": 200, "2": 220, "10": 240}


def folder(root: Path, names: Collection[str], count: int = 6) -> Path:
    """Write `count` images for each class, in a color that tells the class."""
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (8, 8), (0, COLORS.get(name, 0), index)).save(root / name / f"{index}.png")
    return root


def of_folders(source: Path, target: Path, **changes: object) -> Config:
    sides = {"source": ImageFolderConfig(root=str(source)), "target": ImageFolderConfig(root=str(target))}
    return replace(PIPELINES["folders"], shape=SHAPE, **sides, **changes)  # type: ignore[arg-type]


def named(config: Config, before: Config | None = None) -> tuple[Config, list[str]]:
    told: list[str] = []
    return name_classes(config, before, told.append), told


def classes(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    assert isinstance(config.source, ImageFolderConfig) and isinstance(config.target, ImageFolderConfig)
    return config.source.classes, config.target.classes


# --- labels that are compared ---------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["label", "label-ot"])
def test_classes_of_other_names_are_refused_with_both_lists(coupling: str, tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["cat", "dog", "fox"]), folder(tmp_path / "b", ["ant", "cat", "dog"])
    config = of_folders(a, b, coupling=coupling)
    message = (
        rf"^coupling {coupling}: got the classes cat, dog, fox in .*a and ant, cat, dog in .*b, expected the same names"
    )
    with pytest.raises(UserError, match=message):
        named(config)
    with pytest.raises(UserError, match=message):  # also where nobody named them, as in runs of before
        build_samplers(config, data_root=Path(), split="train", device=CPU)


def test_inferred_labels_are_compared_too(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["cat", "dog", "fox"]), folder(tmp_path / "b", ["ant", "cat", "dog"])
    with pytest.raises(UserError, match=r"^infer_labels: got the classes cat, dog, fox in"):
        named(of_folders(a, b, num_classes=3, infer_labels=True))
    named(of_folders(a, b, num_classes=3))  # independently, each has its own
    named(of_folders(a, b, coupling="ot"))


@pytest.mark.parametrize("coupling", ["label", "label-ot"])
def test_each_image_is_paired_with_its_own_class(coupling: str, tmp_path: Path) -> None:
    names = ["dog", "cat", "fox"]
    a, b = folder(tmp_path / "a", names), folder(tmp_path / "b", sorted(names))
    config = of_folders(a, b, coupling=coupling)
    config = replace(config, target=replace(config.target, classes=("fox", "cat", "dog")))
    config, told = named(config)
    assert classes(config) == (("fox", "cat", "dog"),) * 2, "the order that one is given is that of both"
    assert told == ["label → folder: 0 fox, 1 cat, 2 dog"]
    x0, x1 = COUPLINGS[coupling](*build_samplers(config, data_root=Path(), split="train", device=CPU), 8, 0, 0)
    colors = torch.tensor([COLORS[name] for name in ("fox", "cat", "dog")])
    assert x0.labels is not None
    for batch in (x0, x1):
        assert torch.equal(to_pixels(batch.samples)[:, 1, 0, 0].long(), colors[x0.labels])


def test_two_orders_for_labels_that_are_compared_are_refused(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["cat", "dog"]), folder(tmp_path / "b", ["cat", "dog"])
    config = of_folders(a, b, coupling="label")
    config = replace(
        config,
        source=replace(config.source, classes=("dog", "cat")),
        target=replace(config.target, classes=("cat", "dog")),
    )
    with pytest.raises(UserError, match=r"got the classes dog, cat in .* and cat, dog in .*in the same order$"):
        named(config)


def test_pairs_by_name_need_no_classes_but_their_labels_are_compared_only_where_these_are_the_same(
    tmp_path: Path,
) -> None:
    a, b = folder(tmp_path / "a", ["cat", "dog", "fox"], 20), folder(tmp_path / "b", ["ant", "cat", "dog"], 20)
    config = of_folders(a, b, coupling="given", allow_unmatched=True)
    for start in (named(config)[0], config):
        source, target = build_samplers(start, data_root=Path(), split="train", device=CPU)
        pairing = COUPLINGS["given"](source, target, 30, 0, 0)
        assert source.num_classes == target.num_classes == 3
        assert pairing[0].labels is not None and pairing[1].labels is not None
        assert torch.equal(pairing[0].labels + 1, pairing[1].labels), "cat is 0 in one folder and 1 in the other"
        assert "pairs that agree in their labels" not in facts(start, pairing, source, target)
        samples = EvaluationSet(start, (source, target), 8)
        assert "same label" not in compared_labels(samples, samples.source.labels, None, start)  # type: ignore[arg-type]
    (a / "fox").rename(a / "ant")
    config, told = named(config)
    assert told == ["label → folder: 0 ant, 1 cat, 2 dog"]
    source, target = build_samplers(config, data_root=Path(), split="train", device=CPU)
    pairing = COUPLINGS["given"](source, target, 30, 0, 0)
    assert facts(config, pairing, source, target)["pairs that agree in their labels"] == "100.0%"
    samples = EvaluationSet(config, (source, target), 8)
    assert "same label" in compared_labels(samples, samples.source.labels, None, config)  # type: ignore[arg-type]


def test_a_folder_beside_another_kind_keeps_its_own_names(tmp_path: Path) -> None:
    config = of_folders(folder(tmp_path / "a", ["10", "2"]), tmp_path)
    config, told = named(replace(config, target=MnistConfig(), coupling="label"))
    assert isinstance(config.source, ImageFolderConfig) and config.source.classes == ("2", "10")
    assert told == ["label → folder of the source: 0 2, 1 10"]


# --- the order of the labels ----------------------------------------------------------------------------


def labels_of(config: ImageFolderConfig) -> dict[str, int]:
    """Return the label of each class, by its name, from images whose green tells the class."""
    sampler = image_folder(config, SHAPE, "train", CPU)
    batch = sampler.draw(sampler.size or 0, seed=0, step=0)
    assert batch.labels is not None
    found = zip(to_pixels(batch.samples)[:, 1, 0, 0].tolist(), batch.labels.tolist(), strict=True)
    named = {green: name for name, green in COLORS.items()}
    return {named[green]: label for green, label in set(found)}


def test_the_order_of_a_new_run_is_natural_and_of_an_old_one_alphabetical(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["1", "2", "10"]), folder(tmp_path / "b", ["cat", "dog"])
    config = of_folders(b, a)
    fresh, told = named(config)
    assert classes(fresh) == (("cat", "dog"), ("1", "2", "10"))
    assert told == ["label → folder of the source: 0 cat, 1 dog", "label → folder of the target: 0 1, 1 2, 2 10"]
    assert labels_of(fresh.target) == {"1": 0, "2": 1, "10": 2}  # type: ignore[arg-type]
    assert labels_of(config.target) == {"1": 0, "10": 1, "2": 2}, "as weights without names were trained"  # type: ignore[arg-type]
    assert classes(named(config, before=config)[0])[1] == ("1", "10", "2"), "a run of before goes on as it began"


def test_a_run_goes_on_with_the_order_that_it_was_started_with(tmp_path: Path) -> None:
    config = of_folders(folder(tmp_path / "a", ["cat"]), folder(tmp_path / "b", ["cat", "dog", "fox"]))
    started = named(replace(config, target=replace(config.target, classes=("fox", "cat", "dog"))))[0]
    assert named(config, before=started)[0] == started
    assert named(started, before=started)[0] == started
    (tmp_path / "b" / "fox").rename(tmp_path / "b" / "ant")
    assert classes(named(config, before=started)[0])[1] == ("ant", "cat", "dog"), "which refuse_changes then refuses"


@pytest.mark.parametrize("names", [("cat",), ("cat", "dog", "fox"), ("cat", "cow"), ("cat", "dog", "dog")])
def test_names_of_other_classes_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    a = folder(tmp_path / "a", ["cat", "dog"])
    config = replace(of_folders(a, a), target=ImageFolderConfig(root=str(a), classes=names))
    message = rf"got the classes cat, dog in .*a, expected {', '.join(names)}$"
    with pytest.raises(UserError, match=message):
        named(config)
    with pytest.raises(UserError, match=message):
        image_folder(config.target, SHAPE, "train", CPU)  # type: ignore[arg-type]


def test_names_for_images_without_classes_are_refused(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", ["cat", "dog"])
    Image.new("RGB", (8, 8)).save(a / "stray.png")
    assert classes(named(of_folders(a, a))[0]) == ((), ())
    with pytest.raises(UserError, match="got the classes images that lie in no sub-folder"):
        named(replace(of_folders(a, a), target=ImageFolderConfig(root=str(a), classes=("cat", "dog"))))


# --- encodings, and what is passed over -----------------------------------------------------------------


def test_classes_are_the_same_in_two_encodings(tmp_path: Path) -> None:
    name = "größe"
    a, b = folder(tmp_path / "a", [normalize("NFC", name), "x"]), folder(tmp_path / "b", [normalize("NFD", name), "x"])
    config, told = named(of_folders(a, b, coupling="label"))
    assert classes(config) == ((name, "x"),) * 2 and told == ["label → folder: 0 größe, 1 x"]
    source, target = build_samplers(config, data_root=Path(), split="train", device=CPU)
    assert source.num_classes == target.num_classes == 2
    both = folder(tmp_path / "c", [normalize("NFC", name), normalize("NFD", name)])
    with pytest.raises(UserError, match=r"'gro\\u0308\\xdfe|'gr\\xf6\\xdfe'"):
        named(of_folders(a, both))


def test_what_is_passed_over_is_told_once_for_each_folder(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", ["cat"]), folder(tmp_path / "b", ["cat"])
    (a / "cat" / "notes.txt").write_text("")
    (b / "cat" / "link.png").symlink_to(a / "cat" / "0.png")
    (b / ".ipynb_checkpoints").mkdir()
    _, told = named(of_folders(a, b))
    advice = "--source.follow-links or --target.follow-links follows links"
    assert told[:2] == [f"source {a}: passed over: 1 .txt", f"target {b}: passed over: 1 hidden, 1 link; {advice}"]


def test_a_folder_of_links_alone_says_so(tmp_path: Path) -> None:
    a, links = folder(tmp_path / "a", ["cat"]), tmp_path / "links" / "cat"
    links.mkdir(parents=True)
    for file in (a / "cat").iterdir():
        (links / file.name).symlink_to(file)
    config = of_folders(links.parent, a)
    with pytest.raises(UserError, match=r"got no images in .*links \(passed over: 6 links; --source\.follow-links"):
        named(config)
    followed = replace(config, source=replace(config.source, follow_links=True))  # type: ignore[call-arg]
    assert classes(named(followed)[0]) == (("cat",), ("cat",))
    assert build_samplers(followed, data_root=Path(), split="train", device=CPU)[0].size == 5
