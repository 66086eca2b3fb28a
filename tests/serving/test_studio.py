"""What visitors can do, and that they are given the bytes that the verbs write for the same picture and seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import Pipeline, launch
from flowferry.configs.presets import PIPELINES
from flowferry.configs.schema import Config
from flowferry.configs.serve_options import ServeOptions
from flowferry.configs.validation import UserError
from flowferry.datasets.image_io import load_image
from flowferry.pipelines.prompts import prompted
from flowferry.pipelines.serving.asking import Asked
from flowferry.pipelines.serving.controls import Controls
from flowferry.pipelines.serving.studio import Studio
from flowferry.pipelines.translate_tree import opened
from tiny_diffusers import PROMPTS, encoder, stage_1
from translations import bomb, contents, hostile_tree, noise, save_tiny

SMALL = {"widths": (8, 16), "blocks": (1, 1)}
PICTURES = ("photo.JPG", "glass.png", "moving.gif", "gray16.png", "rgb16.png", "scan.deep.tiff", "turned.jpg")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of tiny pipelines by name, with which classes make a difference."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("noise2mnist-cfg", "fashion2mnist", "paired"):
        small = SMALL | ({"widths": (8, 16, 16, 16), "blocks": (1, 1, 1, 1)} if name == "paired" else {})
        save_tiny(folder / name, name, small)
        pipeline = Pipeline.from_pretrained(folder / name, device="cpu")
        torch.manual_seed(0)
        for parameter in pipeline.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        pipeline.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of every kind, good and bad, a mask for some, and one in color of 150 × 90 pixels."""
    folder = tmp_path_factory.mktemp("pictures") / "tree"
    hostile_tree(folder)
    mask = np.zeros((56, 56), np.uint8)
    mask[10:40, 20:50] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    noise(5, (150, 90)).save(folder / "large.png")
    return folder


def studio_of(folder: Path, **options: object) -> Studio:
    return Studio(pipeline=Pipeline.from_pretrained(folder), options=ServeOptions(pipeline=str(folder), **options))


def verb(*argv: object) -> None:
    assert launch.main([str(word) for word in argv]) == 0


# --- the same bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_any_kind_is_translated_as_by_the_verb(
    name: str, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    folder, picture = weights / "fashion2mnist", pictures / name
    ask = Asked(action="translate", picture=picture, seed=4, variants=3, steps=5, restore_size=True)
    answer = studio_of(folder).answer(ask)
    how = ("--seed", 4, "--variants", 3, "--steps", 5, "--restore-size")
    verb("translate", "--pipeline", folder, "--input", picture, "--output", f"{tmp_path}/", *how)
    assert dict(answer.files) == contents(tmp_path) and len(answer.files) == 3
    assert answer.before is not None
    assert {image.shape for image, _ in answer.shown} == {answer.before.shape}
    assert ("several frames" in answer.told) == (name == "moving.gif")


def test_the_way_back_is_that_of_the_verb(weights: Path, pictures: Path, tmp_path: Path) -> None:
    folder, picture, out = weights / "fashion2mnist", pictures / "gray.png", tmp_path / "gray.png"
    answer = studio_of(folder).answer(Asked(action="back", picture=picture))
    verb("translate", "--reverse", "--pipeline", folder, "--input", picture, "--output", out)
    assert answer.files == [("gray.png", out.read_bytes())]


EDITS = {
    "sdedit": ({"start": 0.4, "labels": (3,)}, ("--start", 0.4, "--labels", 3)),
    "inpaint": ({"labels": (None,), "resample": 2}, ("--resample", 2)),
    "flowedit": ({"labels": (None, 8)}, ("--labels", 8)),
    "denoise": ({"start": 0.6, "labels": (None,)}, ("--start", 0.6)),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_variant_of_an_edit_is_what_the_verb_gives_for_its_seed(
    name: str, weights: Path, pictures: Path, tmp_path: Path
) -> None:
    folder, picture, (asked, argv) = weights / "noise2mnist-cfg", pictures / "gray.png", EDITS[name]
    mask = pictures / "mask.png" if name == "inpaint" else None
    ask = Asked(action=name, picture=picture, mask=mask, seed=7, variants=2, guidance=2.0, **asked)  # type: ignore
    answer = studio_of(folder).answer(ask)
    argv = (*argv, "--guidance", 2, *(("--mask", mask) if mask else ()))
    for seed, (_, data) in zip((7, 8), answer.files, strict=True):
        out = tmp_path / f"{seed}.png"
        verb("edit", name, "--pipeline", folder, "--input", picture, "--output", out, "--seed", seed, *argv)
        assert out.read_bytes() == data
    assert [what for _, what in answer.shown] == ["seed 7", "seed 8"]


NEW = {
    "sample": ({"labels": (7,)}, ("sample", "--labels", 7)),
    "all": ({"labels": (None,), "steps": 2}, ("sample", "--steps", 2)),
    "anagram": ({"labels": (6, 9), "view": "flip"}, ("edit", "anagram", "--labels", 6, 9, "--view", "flip")),
    "hybrid": ({"labels": (0, 4), "sigma": 1.5}, ("edit", "hybrid", "--labels", 0, 4, "--sigma", 1.5)),
}


@pytest.mark.parametrize("name", NEW)
def test_new_images_are_those_of_the_verb(name: str, weights: Path, tmp_path: Path) -> None:
    asked, argv = NEW[name]
    action = "sample" if name == "all" else name
    ask = Asked(action=action, seed=3, variants=3, **asked)  # type: ignore[arg-type]
    answer = studio_of(weights / "noise2mnist-cfg").answer(ask)
    verb(*argv, "--pipeline", weights / "noise2mnist-cfg", "--count", 3, "--seed", 3, "--output", tmp_path)
    (tmp_path / "sheet.png").unlink(missing_ok=True)
    assert dict(answer.files) == contents(tmp_path) and answer.before is None
    assert len(answer.shown) == (3 if action == "sample" else 6)  # the others are shown in two views


def test_a_large_picture_in_color_goes_through_in_tiles_as_by_the_verb(
    weights: Path, pictures: Path, tmp_path: Path
) -> None:
    folder, picture, out = weights / "paired", pictures / "large.png", tmp_path / "large.png"
    studio = studio_of(folder, size="own", tile=64, overlap=16)
    answer = studio.answer(Asked(action="translate", picture=picture))
    tiles = ("--size", "own", "--tile", 64, "--overlap", 16)
    verb("translate", "--pipeline", folder, "--input", picture, "--output", out, *tiles)
    assert answer.files == [("large.png", out.read_bytes())]
    assert answer.before is not None and answer.before.shape == answer.shown[0][0].shape == (3, 90, 150)
    assert "restore_size" not in studio.actions["translate"].takes


def test_the_texts_of_a_pretrained_pipeline_are_classes_to_choose_from(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    encoder(stage_1(folder))
    options = ServeOptions(pipeline=str(folder), prompt=tuple(PROMPTS), stride=250)
    studio = Studio(pipeline=prompted(opened(options).pipeline, options), options=options)
    choice = Controls(parts={}, groups={}, studio=studio).label_options(studio.actions["sample"], 0)
    assert [name for name, _ in choice["choices"]] == ["all in turn", *PROMPTS]
    answer = studio.answer(Asked(action="sample", labels=(1,), seed=2, variants=2))
    argv = ("--prompt", *PROMPTS, "--labels", 1, "--stride", 250, "--count", 2, "--seed", 2)
    verb("sample", "--pipeline", folder, *argv, "--output", tmp_path / "out")
    (tmp_path / "out" / "sheet.png").unlink()
    assert dict(answer.files) == contents(tmp_path / "out")


def test_what_is_shown_is_what_the_file_holds(weights: Path, pictures: Path, tmp_path: Path) -> None:
    answer = studio_of(weights / "fashion2mnist").answer(Asked(action="translate", picture=pictures / "photo.JPG"))
    ((name, data),), ((image, _),) = answer.files, answer.shown
    (tmp_path / name).write_bytes(data)
    assert torch.equal(image, load_image(tmp_path / name, (1, 28, 28)))


# --- what is offered ------------------------------------------------------------------------------------


def offered(config: Config, **options: object) -> Studio:
    return Studio(pipeline=Pipeline(config), options=ServeOptions(pipeline=config.name, **options))  # type: ignore


FROM_NOISE = ["sample", "sdedit", "inpaint", "flowedit", "denoise", "anagram"]
OFFERED = {
    "fashion2mnist": ["translate", "back", "anagram"],
    "fashion2mnist-fast": ["translate", "anagram"],
    "fashion2mnist-labels": ["translate", "back", "anagram", "hybrid"],
    "noise2mnist": ["sample", "sdedit", "inpaint", "denoise", "anagram"],
    "noise2mnist-cfg": [*FROM_NOISE, "hybrid"],
    "ddpm-mnist-cfg": [name for name in [*FROM_NOISE, "hybrid"] if name != "flowedit"],
    "denoise-mnist": ["translate", "anagram"],
    "paired": ["translate", "anagram"],
}


@pytest.mark.parametrize("name", OFFERED)
def test_what_is_offered_is_what_the_pipeline_can_do(name: str, tiny) -> None:
    assert list(offered(tiny(name)).actions) == OFFERED[name]


def test_controls_are_shown_where_they_make_a_difference(tiny) -> None:
    def takes(name: str, action: str) -> frozenset[str]:
        return offered(tiny(name)).actions[action].takes

    assert {"seed", "variants", "steps", "restore_size"} <= takes("fashion2mnist", "translate")
    assert not {"guidance"} & takes("fashion2mnist", "translate")  # no classes
    assert not {"seed", "variants"} & takes("fashion2mnist-published", "translate")  # no noise
    assert not {"seed", "variants"} & takes("fashion2mnist", "back")
    assert not {"steps"} & takes("denoise-mnist", "translate")  # one step is all
    assert "guidance" in takes("noise2mnist-cfg", "sample") and "guidance" not in takes(
        "noise2mnist-cfg-fast", "sample"
    )
    assert "picture" in takes("fashion2mnist", "anagram") and "picture" not in takes("noise2mnist", "anagram")
    assert {"mask", "start", "resample"} <= takes("noise2mnist", "inpaint") and "mask" not in takes(
        "noise2mnist", "sdedit"
    )
    labels = offered(tiny("fashion2mnist-labels")).actions["translate"].labels
    assert labels == (("Class", "as inferred from the picture"),)
    assert offered(tiny("noise2mnist")).actions["sample"].labels == ()


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("moons", {}, "serve: got moons, which carries points in the plane, expected images"),
        ("noise2mnist", {"tile": 64}, "--size, --tile, --overlap: got one for noise2mnist, which starts from noise"),
        ("denoise-mnist", {"size": "own"}, "--size: got own, expected network, because course-unet takes"),
        ("paired", {"tile": 64}, "--tile: got 64 for images of the network's size"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_once(name: str, options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as refusal:
        assert offered(PIPELINES[name], **options).actions
    assert str(refusal.value).startswith(told)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        ("bad/bomb.png", "got 60000 × 60000 pixels"),
        ("bad/text.jpg", "not a readable image (got 650 bytes of something else"),
        ("bad/empty.png", "not a readable image (got an empty file"),
        ("bad/half-jpg.jpg", "not a readable image"),
        ("large.png", "not a readable image (got 150 × 90 pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_with_the_reason(
    picture: str, told: str, weights: Path, pictures: Path
) -> None:
    studio = studio_of(weights / "fashion2mnist", max_pixels=10_000)
    for refused in (
        lambda: studio.seen("translate", pictures / picture),
        lambda: studio.answer(Asked(action="translate", picture=pictures / picture)),
    ):
        with pytest.raises(UserError) as refusal:
            refused()
        assert told in str(refusal.value)


def test_a_bomb_is_refused_before_it_is_decoded(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UserError, match="got 60000 × 60000 pixels, expected at most"):
        studio_of(weights / "fashion2mnist").seen("translate", tmp_path / "bomb.png")


def test_a_file_of_too_many_bytes_is_refused(weights: Path, pictures: Path) -> None:
    studio = studio_of(weights / "fashion2mnist", max_upload=0.01)
    with pytest.raises(UserError, match=r"^got 0\.0\d+ MB, expected at most 0\.01 MB"):
        studio.seen("translate", pictures / "large.png")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"action": "nothing"}, "got 'nothing', expected one of sample, sdedit"),
        ({"action": "translate"}, "got 'translate', expected one of sample, sdedit"),
        ({"action": "sdedit", "labels": (None,)}, "Upload a picture first."),
        ({"action": "inpaint", "labels": (None,), "picture": "gray.png"}, "Paint over what is to be made anew first."),
        ({"action": "flowedit", "labels": (3, None), "picture": "gray.png"}, "Choose a class: What it becomes."),
        ({"action": "anagram", "labels": (3, None)}, "Choose a class for both views, or for none."),
        ({"action": "sample", "labels": (10,)}, "--labels: got '10', expected numbers from 0 to 9"),
        ({"action": "sample", "labels": (None,), "variants": 17}, "variants: got 17, expected 1 to 16"),
        ({"action": "sample", "labels": (None,), "steps": 101}, "steps: got 101, expected 1 to 100"),
        ({"action": "sample", "labels": (None,), "guidance": float("nan")}, "guidance: got nan, expected a number ≥ 0"),
        ({"action": "sdedit", "labels": (None,), "picture": "gray.png", "start": 2.0}, "start: got 2.0, expected"),
    ],
)
def test_what_cannot_be_asked_for_is_told(asked: dict[str, object], told: str, weights: Path, pictures: Path) -> None:
    files = {"picture": pictures / str(asked["picture"])} if "picture" in asked else {}
    with pytest.raises(UserError) as refusal:
        studio_of(weights / "noise2mnist-cfg").answer(Asked(**asked | files))  # type: ignore[arg-type]
    assert str(refusal.value).startswith(told)


def test_a_picture_that_is_not_kept_any_more_is_asked_for_again(weights: Path, tmp_path: Path) -> None:
    studio = studio_of(weights / "fashion2mnist")
    with pytest.raises(UserError, match="upload it again"):
        studio.answer(Asked(action="translate", picture=tmp_path / "gone.png"))
