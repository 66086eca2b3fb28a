"""One image's way through a pipeline: nothing but the image itself changes a bit of its result."""

from pathlib import Path

import pytest
from PIL import Image

from translations import contents, noise, save_tiny, translate, write_images


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
