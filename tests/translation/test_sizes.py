"""Images translated at their own size: pipelines/translation/sizes.py."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowferry import Pipeline
from flowferry.configs.networks import PatchUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import UserError
from flowferry.pipelines.translation.sizes import OF_NETWORK, Sizes, blocks, choose_sizes
from translations import contents, noise, rows, save_tiny, translate

OWN = ("--size", "own", "--tile", "24", "--overlap", "8")
SIZES = {"wide": (50, 20), "tall": (13, 30), "small": (7, 5), "line": (60, 1), "own": (16, 16), "too": (16, 16)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny `paired` for 16×16 pixels, which change what they are given."""
    config = PIPELINES["paired"]
    model = PatchUNetConfig(sees_source=True, widths=(8, 16), blocks=(1, 1))
    config = replace(config, shape=(3, 16, 16), model=model, solver=replace(config.solver, num_steps=2))
    torch.manual_seed(0)
    pipeline = Pipeline(config)
    with torch.no_grad():
        for parameter in pipeline.model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("weights") / "paired"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures of various sizes."""
    (tmp_path / "in").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        noise(seed, size).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def images_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name.endswith(".png")}


def test_each_result_has_the_size_of_its_picture(trained: Path, pictures: Path, tmp_path: Path) -> None:
    assert translate(trained, pictures, tmp_path / "out", *OWN) == 0
    for name, size in SIZES.items():
        before, after = (Image.open(folder / f"{name}.png") for folder in (pictures, tmp_path / "out"))
        assert after.size == size
        assert (np.asarray(before) != np.asarray(after)).mean() > 0.5
    header = rows(tmp_path / "out" / "manifest.jsonl")[0]
    assert [header[name] for name in ("size", "tile", "overlap")] == ["own", 24, 8]


def test_neither_neighbors_nor_the_batch_size_change_a_result(trained: Path, pictures: Path, tmp_path: Path) -> None:
    assert translate(trained, pictures, tmp_path / "one", *OWN, "--batch-size", "1") == 0
    assert translate(trained, pictures, tmp_path / "all", *OWN) == 0
    assert images_of(tmp_path / "one") == images_of(tmp_path / "all")
    for name in ("wide", "own"):
        assert translate(trained, pictures / f"{name}.png", tmp_path / f"{name}.png", *OWN) == 0
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / "all" / f"{name}.png").read_bytes()


def test_a_picture_that_fits_in_one_tile_has_the_same_bytes_without_tiles(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    assert translate(trained, pictures, tmp_path / "tiles", *OWN) == 0
    assert translate(trained, pictures, tmp_path / "whole", "--size", "own") == 0
    tiles, whole = images_of(tmp_path / "tiles"), images_of(tmp_path / "whole")
    same = {name for name in tiles if tiles[name] == whole[name]}
    assert same == {f"{name}.png" for name, size in SIZES.items() if max(size) <= 24}


def test_pictures_of_the_network_s_size_have_the_bytes_that_they_have_anyway(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    assert translate(trained, pictures, tmp_path / "own", "--size", "own") == 0
    assert translate(trained, pictures, tmp_path / "network") == 0
    own, network = images_of(tmp_path / "own"), images_of(tmp_path / "network")
    assert {name for name in own if own[name] == network[name]} == {"own.png", "too.png"}
    assert Image.open(tmp_path / "network" / "wide.png").size == (16, 16)


def test_galleries_show_pictures_of_various_sizes(trained: Path, pictures: Path, tmp_path: Path) -> None:
    noise(9, (700, 40)).save(pictures / "panorama.png")
    assert translate(trained, pictures, tmp_path / "out", *OWN, "--sheet", "--gif", "--html") == 0
    with Image.open(tmp_path / "out" / "path.gif") as gif:
        assert gif.n_frames == 3  # two steps
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert 7 * 160 < sheet.width < 8 * 160 + 100 and 2 * 160 < sheet.height < 3 * 160
    assert (tmp_path / "out" / "index.html").read_text().count("<figcaption") == 7


def test_blocks_hold_images_of_one_shape_and_each_image_once_but_for_what_fills_them_up() -> None:
    shapes = [(1, 2, 3), (1, 9, 9), (1, 2, 3), (1, 9, 9), (1, 2, 3)]
    found = list(blocks(shapes, [1] * len(shapes), lambda shape: 2 if tuple(shape) == (1, 1, 2, 3) else 1))
    assert found == [[0, 2], [4, 4], [1], [3]]
    assert list(blocks([], [], lambda shape: 4)) == []


def test_variants_of_pictures_of_various_sizes_differ_and_the_first_is_the_only_one(
    trained: Path, pictures: Path, tmp_path: Path
) -> None:
    assert translate(trained, pictures, tmp_path / "one", *OWN) == 0
    assert translate(trained, pictures, tmp_path / "two", *OWN, "--variants", "2", "--sheet", "--gif") == 0
    one, two = images_of(tmp_path / "one"), images_of(tmp_path / "two")
    for name in SIZES:
        assert two[f"{name}.1.png"] == one[f"{name}.png"] != two[f"{name}.2.png"]


PEAK = """
import sys
from resource import RUSAGE_SELF, getrusage
from flowferry import launch
weights, *files = sys.argv[1:]
for name in files:
    print(getrusage(RUSAGE_SELF).ru_maxrss)
    options = ["--size", "own", "--steps", "2"]
    launch.main(["translate", "--pipeline", weights, "--input", name, "--output", name + ".out.png", *options])
print(getrusage(RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_picture_of_4_megapixels_takes_less_than_1_gb_of_memory(tmp_path: Path) -> None:
    """With the network of `paired`, from file to file, beyond what a process takes for a picture of 64×64 pixels."""
    Pipeline(PIPELINES["paired"]).save_pretrained(tmp_path / "weights")
    names = [str(tmp_path / "small.png"), str(tmp_path / "large.png")]
    for name, side in zip(names, (64, 2048), strict=True):
        noise(0, (side, side)).save(name)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "weights"), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    _, bare, peak = (int(line) / 1024 for line in done.stdout.split())  # MB
    assert Image.open(f"{names[1]}.out.png").size == (2048, 2048)
    assert peak - bare < 1000


# --- which size it is -----------------------------------------------------------------------------------


def chosen(
    name: str = "paired",
    size: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    resize: str | None = None,
    crops: bool = False,
) -> Sizes:
    return choose_sizes(Pipeline(PIPELINES[name]), size, tile, overlap, resize=resize, crops=crops)


def test_only_what_was_trained_on_crops_is_translated_at_its_own_size_unasked() -> None:
    assert chosen() == chosen(size="network", crops=True) == OF_NETWORK
    assert chosen(crops=True) == chosen(size="own") == Sizes("own", 512, 64)
    assert chosen(crops=True, tile=128) == Sizes("own", 128, 32)
    assert chosen(crops=True, resize="fill") == OF_NETWORK  # which says that it is brought to the network's size
    assert chosen("noise2mnist-published", crops=True) == OF_NETWORK  # because its network takes no other


@pytest.mark.parametrize(
    "options, told",
    [
        ({"name": "noise2mnist-published", "size": "own"}, "course-unet takes 28 × 28 pixels only"),
        ({"size": "own", "resize": "fit"}, "--resize: got fit with --size own, expected one of the two"),
        ({"tile": 128}, "--tile: got 128 for images of the network's size, expected --size own"),
        ({"crops": True, "size": "network", "overlap": 8}, "--overlap: got 8 for images of the network's size"),
        ({"size": "own", "tile": 30}, "tile: got 30 pixels, expected a multiple of 16"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UserError) as refused:
        chosen(**options)  # type: ignore[arg-type]
    assert told in str(refused.value)


def test_a_rectangular_network_takes_other_rectangles(tmp_path: Path) -> None:
    """Trained at 48 × 64 pixels, high by wide; translating 300 × 200."""
    config = PIPELINES["paired"]
    config = replace(config, shape=(3, 48, 64), solver=replace(config.solver, num_steps=1))
    config = replace(config, model=PatchUNetConfig(sees_source=True, widths=(8, 8), blocks=(1, 1)))
    Pipeline(config).save_pretrained(tmp_path / "weights")
    noise(0, (300, 200)).save(tmp_path / "a.png")
    for options, size in (((), (64, 48)), (("--restore-size",), (300, 200)), (("--size", "own"), (300, 200))):
        assert translate(tmp_path / "weights", tmp_path / "a.png", tmp_path / "b.png", *options) == 0
        with Image.open(tmp_path / "b.png") as image:
            assert image.size == size


def test_gray_pipelines_take_color_pictures_at_their_own_size(tmp_path: Path) -> None:
    model = {"widths": (8, 16), "blocks": (1, 1)}
    weights = save_tiny(tmp_path / "weights", "fashion2mnist", model)
    noise(0, (40, 31)).save(tmp_path / "a.png")
    assert translate(weights, tmp_path / "a.png", tmp_path / "b.png", "--size", "own", "--source-noise", "0.5") == 0
    with Image.open(tmp_path / "b.png") as image:
        assert (image.size, image.mode) == ((40, 31), "L")
