"""One image's way through a pipeline: nothing but the image itself changes a bit of its result."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from flowferry.configs.images import ReadConfig
from flowferry.datasets.file_tree import OutputTree
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.translation.manifest import Manifest
from flowferry.pipelines.translation.translator import Translator, translate_stream
from translations import contents, noise, rows, save_tiny, translate, write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny fashion2mnist."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny", "fashion2mnist-published", {"width": 4})


NETWORKS = {
    "practical-unet": ("fashion2mnist-published", {"width": 32}, ()),
    "course-unet": ("noise2mnist-cfg-published", {"width": 16}, ("--reverse", "--labels", "3", "--guidance", "2")),
    "attention-unet": ("noise2cifar", {"widths": (16, 32), "attention": (True,), "middle": 32}, ("--reverse",)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_batch_size_changes_nothing(network: str, tmp_path: Path) -> None:
    name, model, options = NETWORKS[network]
    weights = save_tiny(tmp_path / "weights", name, model)
    source = write_images(tmp_path / "in", 10)
    made = []
    for size in ("1", "7", "64"):
        assert translate(weights, source, tmp_path / size, "--batch-size", size, "--steps", "1", *options) == 0
        made.append(contents(tmp_path / size))
    assert len(made[0]) == 11
    assert made[0] == made[1] == made[2]


def test_neighbors_change_nothing(trained: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 40)
    assert translate(trained, source, tmp_path / "all") == 0
    alone = tmp_path / "alone.png"
    assert translate(trained, source / "1" / "31.png", alone) == 0
    assert alone.read_bytes() == (tmp_path / "all" / "1" / "31.png").read_bytes()


def test_each_block_counts_as_soon_as_it_is_through_the_network(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images are held at a time: the bar would stand still, and then jump."""
    tree = OutputTree(write_images(tmp_path / "in", 70))
    pipeline, events = Pipeline.from_pretrained(trained, device="cpu"), list[object]()
    through = Translator.translate_batch

    def translate_batch(self: Translator, images: list[Tensor], variants: list[int]) -> Tensor:
        events.append("network")
        return through(self, images, variants)

    monkeypatch.setattr(Translator, "translate_batch", translate_batch)
    manifest = Manifest(tmp_path / "out", {})
    manifest.open(overwrite=False)
    translator = Translator(pipeline=pipeline, reading=ReadConfig())
    done = translate_stream(translator, manifest, tree.root, tree.walk(), batch_size=256, progress=events.append)
    assert len(list(done)) == 70
    assert events == ["network", 32, "network", 32, "network", 6]
    manifest.close()


def test_what_fill_cut_off_is_put_back_from_the_original(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(0, (80, 60)).save(tmp_path / "in" / "wide.png")
    assert translate(trained, tmp_path / "in", tmp_path / "out", "--resize", "fill", "--restore-size") == 0
    before, after = (np.asarray(Image.open(tmp_path / name / "wide.png").convert("L")) for name in ("in", "out"))
    assert before.shape == after.shape
    assert (before[:, :10] == after[:, :10]).all() and (before[:, 70:] == after[:, 70:]).all()
    assert (before[:, 10:70] != after[:, 10:70]).mean() > 0.9


def test_what_was_worth_telling_of_a_file_is_told_and_kept(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_images(tmp_path / "in", 2)
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(source / "clear.png")
    Image.fromarray(np.linspace(0, 4095, 784).astype(np.uint16).reshape(28, 28)).save(source / "deep.png")
    assert translate(trained, source, tmp_path / "out") == 0
    kept = {row["input"]: row["notes"] for row in rows(tmp_path / "out" / "manifest.jsonl")[1:]}
    assert kept == {"0/0.png": [], "1/1.png": [], "clear.png": ["one color"], "deep.png": ["little range"]}
    assert "1 had a single color after loading" in caplog.text and "1 had less than a tenth of the range" in caplog.text
    caplog.clear()
    options = ("--range", "0", "4095", "--background", "white")
    assert translate(trained, source, tmp_path / "out", *options) == 0  # other settings: all of them again
    assert "4 translated" in caplog.text and "range" not in caplog.text
    assert rows(tmp_path / "out" / "manifest.jsonl")[0]["range"] == [0, 4095]


def test_strict_and_max_pixels_are_options(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise(0, (40, 30)).save(tmp_path / "in" / "short.jpg")
    data = (tmp_path / "in" / "short.jpg").read_bytes()
    (tmp_path / "in" / "short.jpg").write_bytes(data[:-2])
    assert translate(trained, tmp_path / "in", tmp_path / "out") == 0
    for options, reason in ((("--strict",), "truncated"), (("--max-pixels", "1199"), "40 × 30 pixels")):
        assert translate(trained, tmp_path / "in", tmp_path / options[0], "--overwrite", *options) == 1
        assert reason in rows(tmp_path / options[0] / "failures.jsonl")[0]["error"]


def test_noise_on_the_source_is_a_function_of_the_image_and_the_seed(trained: Path, tmp_path: Path) -> None:
    """Whatever its name, its neighbors, the batch size and the format of the file."""
    source = write_images(tmp_path / "in", 6)
    Image.open(source / "0" / "0.png").save(source / "same.bmp")

    def made(name: str, *options: str) -> dict[str, bytes]:
        noise = ("--source-noise", "0.4", *options)
        assert translate(trained, source, tmp_path / name, *noise) == 0
        return {file: data for file, data in contents(tmp_path / name).items() if file.endswith(".png")}

    first = made("first", "--batch-size", "1")
    assert made("again", "--batch-size", "5") == first
    assert first["same.png"] == first["0/0.png"] and len(set(first.values())) == 6
    other = made("other", "--seed", "1")
    assert all(other[name] != data for name, data in first.items())
    assert rows(tmp_path / "other" / "manifest.jsonl")[0]["seed"] == 1
    assert translate(trained, source, tmp_path / "plain", "--seed", "1") == 0
    assert rows(tmp_path / "plain" / "manifest.jsonl")[0]["seed"] is None  # it decides nothing there


def test_variants_are_functions_of_the_image_the_seed_and_their_number(trained: Path, tmp_path: Path) -> None:
    """The first is what an image has alone; more of them change none of the others."""
    source = write_images(tmp_path / "in", 3)
    Image.open(source / "0" / "0.png").save(source / "same.bmp")

    def made(name: str, *options: str) -> dict[str, bytes]:
        assert translate(trained, source, tmp_path / name, "--source-noise", "0.4", *options) == 0
        return {file: data for file, data in contents(tmp_path / name).items() if file.endswith(".png")}

    single, three = made("single"), made("three", "--variants", "3", "--batch-size", "2")
    assert three.keys() == {name.replace(".png", f".{k}.png") for name in single for k in (1, 2, 3)}
    assert {name: three[name.replace(".png", ".1.png")] for name in single} == single
    assert len(set(three.values())) == 9 and three["same.2.png"] == three["0/0.2.png"]
    twelve = made("twelve", "--variants", "12")  # whose names are not in the order of their numbers
    assert three.items() <= twelve.items() and len(set(twelve.values())) == 36


def test_bf16_is_told_in_the_manifest_and_depends_on_nothing_else(tmp_path: Path) -> None:
    weights = save_tiny(tmp_path / "weights", "fashion2mnist-published", {"width": 16})
    source, out, bf16 = write_images(tmp_path / "in", 5), tmp_path / "out", ("--precision", "bf16")
    assert translate(weights, source, out) == 0
    exact = contents(out)
    assert translate(weights, source, out, *bf16) == 0  # all of it again: no folder holds both
    found = contents(out)
    assert rows(out / "manifest.jsonl")[0]["precision"] == "bf16"
    assert all(exact[name] != found[name] for name in exact)
    assert translate(weights, source, tmp_path / "one by one", *bf16, "--batch-size", "1") == 0
    assert contents(tmp_path / "one by one") == found
    for name in set(exact) - {"manifest.jsonl"}:
        a, b = (np.asarray(Image.open(BytesIO(made[name]))).astype(int) for made in (exact, found))
        assert abs(a - b).max() <= 8


@pytest.mark.parametrize("resize", ["fit", "fill", "stretch"])
def test_restored_results_have_the_size_of_their_upright_inputs(resize: str, trained: Path, tmp_path: Path) -> None:
    sizes = {"wide.png": (90, 40), "tall.png": (33, 95), "small.png": (7, 5), "line.png": (300, 1), "own.png": (28, 28)}
    (tmp_path / "in").mkdir()
    for name, size in sizes.items():
        noise(0, size).save(tmp_path / "in" / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(1, (60, 20)).save(tmp_path / "in" / "turned.jpg", exif=exif)
    options = ("--resize", resize, "--restore-size")
    assert translate(trained, tmp_path / "in", tmp_path / "out", *options) == 0
    for name, size in {**sizes, "turned.png": (20, 60)}.items():
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == size
