"""One image's way through a pipeline: nothing but the image itself changes a bit of its result."""

from dataclasses import replace
from errno import ENOSPC
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
import tifffile
import torch
from odd_files import deep_png
from PIL import Image
from torch import Tensor

from flowferry import Pipeline, launch
from flowferry.configs.components import ImageFolderConfig
from flowferry.configs.images import ReadConfig
from flowferry.configs.networks import PracticalUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import BrokenOff
from flowferry.datasets.file_tree import OutputTree
from flowferry.datasets.image_io import decode
from flowferry.pipelines import hardware
from flowferry.pipelines import translate_tree as verb
from flowferry.pipelines.hardware import networks_at_once
from flowferry.pipelines.translation.manifest import Manifest
from flowferry.pipelines.translation.transforms import Translation
from flowferry.pipelines.translation.translator import FILE_THREADS, Translator, translate_stream
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


def test_the_number_of_networks_at_a_time_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = save_tiny(tmp_path / "weights", "fashion2mnist-published", {"width": 32})
    source, made = write_images(tmp_path / "in", 200), []
    for networks, threads in ((1, 1), (1, 3), (3, 3)):
        monkeypatch.setattr(hardware, "NETWORKS", networks)
        monkeypatch.setattr(verb, "use_cores", partial(torch.set_num_threads, threads))
        assert translate(weights, source, tmp_path / f"{networks} {threads}", "--steps", "1") == 0
        made.append(contents(tmp_path / f"{networks} {threads}"))
    assert len(made[0]) == 201
    assert made[0] == made[1] == made[2]


def test_neighbors_change_nothing(trained: Path, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 40)
    assert translate(trained, source, tmp_path / "all") == 0
    alone = tmp_path / "alone.png"
    assert translate(trained, source / "1" / "31.png", alone) == 0
    assert alone.read_bytes() == (tmp_path / "all" / "1" / "31.png").read_bytes()


def test_each_block_counts_as_soon_as_its_files_are_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images are held at a time: the bar would stand still, and then jump."""
    tree = OutputTree(write_images(tmp_path / "in", 390))
    pipeline, events = Pipeline.from_pretrained(trained, device="cpu"), list[object]()
    through = Translator.translate_batch

    def translate_batch(self: Translator, images: list[Tensor], variants: list[int]) -> list[Tensor]:
        events.append("network")
        return through(self, images, variants)

    monkeypatch.setattr(Translator, "translate_batch", translate_batch)
    manifest = Manifest(tmp_path / "out", {})
    manifest.open(overwrite=False)
    translator = Translator(transform=Translation(pipeline=pipeline), reading=ReadConfig())
    done = translate_stream(translator, manifest, tree.root, tree.walk(), batch_size=512, progress=events.append)
    assert len(list(done)) == 390
    assert [told for told in events if told != "network"] == [32] * 12 + [6]
    begun = [number for number, event in enumerate(events) if event == "network"]
    ahead = networks_at_once(pipeline.device, small=True)[0] + FILE_THREADS  # blocks on their way at a time, at most
    for block in range(ahead + 1, 13):
        assert events[: begun[block]].count(32) >= block - ahead, events
    manifest.close()


def test_where_the_disk_is_full_what_was_written_is_noted_and_no_file_is_written_afterwards(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fifth file of the first block does not fit, while another block is being written."""
    tree = OutputTree(write_images(tmp_path / "in", 64))
    first = [item.name for item in tree.walk()][:32]
    manifest = Manifest(tmp_path / "out", {})
    manifest.open(overwrite=False)
    begun, ended, other_begun, may_end = list[str](), list[str](), Event(), Event()
    really = Manifest.write

    def write(self: Manifest, name: str, data: bytes) -> str:
        begun.append(name)
        if name == first[4]:
            assert other_begun.wait(60)
            Timer(0.5, may_end.set).start()
            raise OSError(ENOSPC, "No space left on device")
        if name not in first:
            other_begun.set()
            assert may_end.wait(60)
        digest = really(self, name, data)
        ended.append(name)
        return digest

    monkeypatch.setattr(Manifest, "write", write)
    pipeline = Pipeline.from_pretrained(trained, device="cpu")
    translator = Translator(transform=Translation(pipeline=pipeline), reading=ReadConfig())
    with pytest.raises(BrokenOff, match="No space"):
        list(translate_stream(translator, manifest, tree.root, tree.walk(), batch_size=64, progress=lambda count: None))
    assert sorted(ended) == sorted(set(begun) - {first[4]})
    noted = rows(manifest.work / "done-0.jsonl")[1:]
    assert [row["output"] for row in noted] == first[:4]
    manifest.abandon()


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
    assert "1 had nearly a single color after loading" in caplog.text
    assert "1 had less than a tenth of the range" in caplog.text
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


# --- any kind of picture --------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)


def identity(folder: Path, channels: int) -> Path:
    """Save weights of a pipeline whose velocity is zero everywhere, and return their folder."""
    config, root = PIPELINES["folders"], ImageFolderConfig(root="x", resize="none", background="white")
    config = replace(config, source=root, target=root, model=PracticalUNetConfig(width=4), shape=(channels, 28, 20))
    pipeline = Pipeline(replace(config, solver=replace(config.solver, num_steps=2)))
    with torch.no_grad():
        for parameter in pipeline.model.parameters():
            parameter.zero_()
    pipeline.save_pretrained(folder)
    return folder


def save_deep(path: Path, numbers: np.ndarray) -> None:
    """Write uint16 numbers [28, 20, C] as gray PNG, color PNG, TIFF or an array, as the ending says."""
    gray = numbers.shape[2] == 1
    if path.suffix == ".npy":
        np.save(path, numbers)
    elif path.suffix == ".png" and gray:
        Image.fromarray(numbers[..., 0]).save(path)
    elif path.suffix == ".png":
        path.write_bytes(deep_png(numbers))
    else:
        tifffile.imwrite(path, numbers[..., 0] if gray else numbers, photometric="minisblack" if gray else "rgb")


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_survive_a_pipeline_that_changes_nothing(channels: int, tmp_path: Path) -> None:
    """To the bit, in each format that holds them, with --restore-size too; what a range leaves out is clipped."""
    numbers = RANDOM.integers(0, 65536, (28, 20, channels), np.uint16)
    twelve, weights = numbers // 16, identity(tmp_path / "weights", channels)
    (tmp_path / "in").mkdir()
    for ending in ("png", "tif", "npy"):
        save_deep(tmp_path / "in" / f"a{ending}.{ending}", numbers)
    for name, options in (("plain", ()), ("restored", ("--restore-size",))):
        assert translate(weights, tmp_path / "in", tmp_path / name, *options) == 0
        for ending in ("png", "tif", "npy"):
            data = (tmp_path / name / f"a{ending}.{ending}").read_bytes()
            assert (decode(data, channels, ReadConfig()).pixels == numbers).all(), (name, ending)
    save_deep(tmp_path / "x.tif", twelve)
    assert translate(weights, tmp_path / "x.tif", tmp_path / "y.tif", "--range", "0", "4095") == 0
    assert (tifffile.imread(tmp_path / "y.tif").reshape(28, 20, channels) == twelve).all()


def test_eight_bits_stay_eight(tmp_path: Path) -> None:
    weights = identity(tmp_path / "weights", 3)
    noise(0, (20, 28)).save(tmp_path / "a.png")
    for name, options in (("b.png", ()), ("c.tif", ("--restore-size",)), ("d.webp", ())):
        assert translate(weights, tmp_path / "a.png", tmp_path / name, *options) == 0
        with Image.open(tmp_path / name) as image:
            assert image.mode == "RGB" and (np.asarray(image) == np.asarray(noise(0, (20, 28)))).all()


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("options", [(), ("--resize", "stretch"), ("--resize", "fill", "--restore-size")])
def test_alpha_is_kept_as_it_was(ending: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """Beside a result that saw the image on the background; at the size of the result."""
    size = (20, 28) if not options else (31, 40)
    weights, image = identity(tmp_path / "weights", 3), noise(0, size, "RGBA")
    alpha = Image.fromarray(RANDOM.integers(0, 256, size[::-1], np.uint8))
    image.putalpha(alpha)
    image.save(tmp_path / f"a.{ending}", **({"lossless": True, "exact": True} if ending == "webp" else {}))
    assert translate(weights, tmp_path / f"a.{ending}", tmp_path / f"b.{ending}", *options) == 0
    with Image.open(tmp_path / f"b.{ending}") as result:
        assert result.mode == "RGBA"
        expected = alpha if "stretch" not in options else alpha.resize((20, 28), Image.Resampling.LANCZOS)
        assert (np.asarray(result.getchannel("A")) == np.asarray(expected)).all()
        if not options:
            seen = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
            assert (np.asarray(result.convert("RGB")) == np.asarray(seen)).all()


def test_a_pipeline_of_four_channels_translates_alpha(tmp_path: Path) -> None:
    numbers = RANDOM.integers(0, 256, (28, 20, 4), np.uint8)
    Image.fromarray(numbers).save(tmp_path / "a.png")
    assert translate(identity(tmp_path / "weights", 4), tmp_path / "a.png", tmp_path / "b.png") == 0
    with Image.open(tmp_path / "b.png") as result:
        assert (np.asarray(result) == numbers).all()


def test_what_a_format_cannot_hold_is_told_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    noise(0, (20, 28), "RGBA").save(tmp_path / "in" / "a.png")
    three, seven = identity(tmp_path / "three", 3), identity(tmp_path / "seven", 7)
    assert translate(three, tmp_path / "in", tmp_path / "out", "--format", "jpeg") == 0
    assert "1 had transparent parts, which the results' format cannot hold" in caplog.text
    assert contents(tmp_path / "out").keys() == {"a.jpg", "manifest.jsonl"}
    assert translate(seven, tmp_path / "in", tmp_path / "none", "--format", "png") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "error: format png: got images of 7 channels, expected tiff, npy"
    assert translate(seven, tmp_path / "in", tmp_path / "none") == 1
    (failed,) = rows(tmp_path / "none" / "failures.jsonl")
    assert "got a picture, expected 7 channels" in failed["error"]


def test_seven_channels_are_trained_on_sampled_and_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From TIFF files and from arrays of floats, with sheets."""
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir(), Path("b").mkdir()
    for index in range(12):
        numbers = RANDOM.integers(0, 65536, (8, 8, 7), np.uint16)
        tifffile.imwrite(f"a/{index}.tif", numbers, photometric="minisblack", planarconfig="contig")
        np.save(f"b/{index}.npy", np.moveaxis(numbers, -1, 0).astype(np.float32) / 65535)
    argv = "--pipeline folders --source.root a --target.root b --coupling given --shape 7 8 8 --output-dir run"
    small = "--model.widths 16 16 --model.attention False --model.middle 8 --solver.steps 2 --train.max-steps 2".split()
    assert launch.main([*argv.split(), *small, "--train.batch-size", "4", "--train.threads", "1"]) == 0
    assert launch.main("translate --pipeline run --input a --output out --sheet --gif --html".split()) == 0
    assert launch.main("translate --pipeline run --input a/3.tif --output 3.npy".split()) == 0
    found = tifffile.imread("out/3.tif")
    assert found.shape == (8, 8, 7) and found.dtype == np.uint16
    assert (np.load("3.npy") == found).all()
    assert launch.main("translate --pipeline run --input b --output back --reverse".split()) == 0
    assert np.load("back/3.npy").shape == (7, 8, 8) and np.load("back/3.npy").dtype == np.float32
    assert launch.main("sample --pipeline run --count 2 --output drawn".split()) == 0
    assert tifffile.imread("drawn/00001.tif").shape == (8, 8, 7)
