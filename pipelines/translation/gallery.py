"""Show the first translated images of a folder: on a sheet, in a GIF, on a page to open in a browser."""

import base64
import html
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch
from PIL import Image

from flowferry.configs.images import ReadConfig
from flowferry.configs.terminal import escaped
from flowferry.datasets.color_profiles import png
from flowferry.datasets.file_tree import Tree
from flowferry.datasets.image_io import load_image
from flowferry.datasets.pixels import to_pil
from flowferry.pipelines.storage.files import write_png, write_text
from flowferry.pipelines.translation.translator import LoadedImage, Translator
from flowferry.pipelines.visualization.grids import Row, caption, path_frames, save_gif, sheet, solver_summary

log = logging.getLogger("flowferry")

ON_SHEET, IN_GIF, ON_PAGE = 64, 16, 64  # images to show, at most
ACROSS = 16  # images in a row of the sheet
AS_IT_IS = ReadConfig(resize="stretch")
LARGEST = 512  # pixels of an image's longer side on the page, at most


class Pair(NamedTuple):
    """A translated file, the image as the network gets it, and the file with the result."""

    before: Path
    loaded: LoadedImage
    after: Path


def show(translator: Translator, tree: Tree, output: Path, names: Sequence[str]) -> None:
    """Write the galleries called `names`, keys of `WRITERS`, of the first translated images into `output`."""
    for name in names:
        if pairs := list(islice(translated_pairs(translator, tree, output), max(ON_SHEET, IN_GIF, ON_PAGE))):
            WRITERS[name](translator, pairs, output / name)
            log.info("shown in %s", output / name)


def translated_pairs(translator: Translator, tree: Tree, output: Path) -> Iterator[Pair]:
    """Yield each file of the tree that has a translation in `output`, in order."""
    for item in tree.walk():
        loaded = translator.load(tree.root, None, (item, None))
        after = output / item.output
        if isinstance(loaded, LoadedImage) and after.is_file():
            yield Pair(tree.root / item.name, loaded, after)


def write_sheet(translator: Translator, pairs: list[Pair], file: Path) -> None:
    """Write a sheet: rows of images as the network gets them, each above its results."""
    shape = translator.pipeline.config.shape
    rows: list[Row] = []
    for start in range(0, min(len(pairs), ON_SHEET), ACROSS):
        part = pairs[start : start + ACROSS]
        rows.append(("before", torch.stack([pair.loaded.image for pair in part])))
        rows.append(("after", torch.stack([load_image(pair.after, shape, AS_IT_IS) for pair in part])))  # type: ignore[arg-type]
    write_png(file, sheet(rows, caption(translator.pipeline.config, solver_summary(translator.pipeline))))


def write_gif(translator: Translator, pairs: list[Pair], file: Path) -> None:
    """Write a GIF of all images moving from the input to the result at once."""
    images = torch.stack([pair.loaded.image for pair in pairs[:IN_GIF]])
    points = translator.trajectory(images)
    across, reverse = max(1, round(len(images) ** 0.5)), translator.reverse
    save_gif(path_frames(translator.pipeline.config, points, across=across, reverse=reverse), file)


def write_page(translator: Translator, pairs: list[Pair], file: Path) -> None:
    """Write an HTML page without other files: each image with a slider between before and after."""
    cards = []
    for pair in pairs[:ON_PAGE]:
        before = translator.original(pair.before) if translator.restore_size else to_pil(pair.loaded.image)
        name = html.escape(escaped(pair.loaded.item.name), quote=True)
        cards.append(CARD.substitute(name=name, before=data_url(before), after=data_url(Image.open(pair.after))))
    config = translator.pipeline.config
    told = html.escape(caption(config, solver_summary(translator.pipeline), f"the first {len(cards)} images"))
    page = PAGE.substitute(title=html.escape(config.name), told=told, cards="\n".join(cards))
    write_text(file, page)


def data_url(image: Image.Image) -> str:
    """Return an image as a PNG in a data URL, shrunk to at most LARGEST pixels on its longer side."""
    small = image.convert("RGB" if image.mode == "RGB" else "L")
    small.thumbnail((LARGEST, LARGEST))
    return "data:image/png;base64," + base64.b64encode(png(small)).decode()


CARD = Template("""\
<figure>
  <div class="pair">
    <img src="$before" alt="$name before">
    <img class="after" src="$after" alt="$name after">
    <i></i>
    <input type="range" min="0" max="100" value="50" aria-label="$name: from before to after">
  </div>
  <figcaption title="$name">$name</figcaption>
</figure>""")

PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title: before and after</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
  body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
  h1 { font-size: 1.4rem; margin: 0; }
  main { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1.2rem; margin-top: 1.5rem; }
  figure { margin: 0; }
  figcaption { font-size: .8rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; opacity: .8; }
  .pair { --at: 50%; position: relative; overflow: hidden; border-radius: 6px; background: #8884; }
  .pair img { display: block; width: 100%; image-rendering: pixelated; }
  .pair .after { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--at)); }
  .pair i { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px; background: #f80; }
  .pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
  .pair:focus-within { outline: 2px solid #f80; outline-offset: 2px; }
  #all { width: 20rem; max-width: 100%; }
</style>
<h1>$title</h1>
<p>$told. Drag over an image: before on the left, after on the right.</p>
<label>all of them <input id="all" type="range" min="0" max="100" value="50"></label>
<main>
$cards
</main>
<script>
  const sliders = document.querySelectorAll(".pair input");
  const move = slider => slider.parentNode.style.setProperty("--at", slider.value + "%");
  for (const slider of sliders) slider.addEventListener("input", () => move(slider));
  document.getElementById("all").addEventListener("input", event => {
    for (const slider of sliders) { slider.value = event.target.value; move(slider); }
  });
</script>
</html>
""")

WRITERS: dict[str, Callable[[Translator, list[Pair], Path], None]] = {
    "sheet.png": write_sheet,
    "path.gif": write_gif,
    "index.html": write_page,
}
