"""What `translate` shows of a folder when it is done: a sheet, a GIF, a page to open in a browser."""

import base64
import html
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from string import Template
from typing import NamedTuple

import torch
from PIL import Image

from datasets.imagefiles import load_image, restored
from datasets.pixels import to_pil
from datasets.tree import Tree
from pipelines.sheets import Row, caption, how, path_frames, save_gif, sheet
from pipelines.translator import Loaded, Translator, png

log = logging.getLogger("flowferry")

ON_SHEET, ON_WAY, ON_PAGE = 64, 16, 64  # the first so many images
ACROSS = 16
LARGEST = 512  # pixels of an image's longer side on the page


class Pair(NamedTuple):
    """A file that was translated: what the network was given of it, and the file that came of it."""

    loaded: Loaded
    after: Path


def show(translator: Translator, tree: Tree) -> None:
    """Writes what was asked for into the folder of the outputs, of the first files that were translated."""
    options = translator.options
    ways = {"sheet.png": (options.sheet, write_sheet), "path.gif": (options.gif, write_gif)}
    ways["index.html"] = (options.html, write_page)
    for name, (asked, write) in ways.items():
        if asked and (found := list(islice(pairs(translator, tree), max(ON_SHEET, ON_WAY, ON_PAGE)))):
            write(translator, found, options.output / name)
            log.info("shown in %s", options.output / name)


def pairs(translator: Translator, tree: Tree) -> Iterator[Pair]:
    for item in tree.walk():
        loaded = translator.load(tree.root, None, (item, None))
        after = translator.options.output / item.output
        if isinstance(loaded, Loaded) and after.is_file():
            yield Pair(loaded, after)


def write_sheet(translator: Translator, found: list[Pair], file: Path) -> None:
    """Rows of what the network was given, each above its results."""
    shape = translator.pipeline.config.shape
    rows: list[Row] = []
    for start in range(0, min(len(found), ON_SHEET), ACROSS):
        part = found[start : start + ACROSS]
        rows.append(("before", torch.stack([pair.loaded.image for pair in part])))
        rows.append(("after", torch.stack([load_image(pair.after, shape, "stretch") for pair in part])))  # type: ignore[arg-type]
    sheet(rows, caption(translator.pipeline.config, how(translator.pipeline))).save(file)


def write_gif(translator: Translator, found: list[Pair], file: Path) -> None:
    """The images on their way, all at once."""
    images = torch.stack([pair.loaded.image for pair in found[:ON_WAY]])
    points = translator.way(images)
    across, reverse = max(1, round(len(images) ** 0.5)), translator.options.reverse
    save_gif(path_frames(translator.pipeline.config, points, across=across, reverse=reverse), file)


def write_page(translator: Translator, found: list[Pair], file: Path) -> None:
    """One page with everything in it: each image with a slider between before and after."""
    cards = []
    for pair in found[:ON_PAGE]:
        before, after = to_pil(pair.loaded.image), Image.open(pair.after)
        if translator.options.restore_size:
            before = restored(before, pair.loaded.size, *translator.framing)
        name = html.escape(pair.loaded.item.name, quote=True).encode("utf-8", "replace").decode()
        cards.append(CARD.substitute(name=name, before=data_url(before), after=data_url(after)))
    config = translator.pipeline.config
    told = html.escape(caption(config, how(translator.pipeline)))
    told += html.escape(f" · {len(cards)} of the images in {translator.options.input.name}")
    page = PAGE.substitute(title=html.escape(config.name), told=told, cards="\n".join(cards))
    file.write_text(page, encoding="utf-8")


def data_url(image: Image.Image) -> str:
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
