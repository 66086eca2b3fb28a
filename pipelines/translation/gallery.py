"""Show the first translated images of a folder: on a sheet, in a GIF, on a page to open in a browser."""

import base64
import html
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from flowferry.configs.terminal import escaped
from flowferry.datasets.file_tree import Item, Tree
from flowferry.datasets.image_io import load_image, to_tensor
from flowferry.datasets.image_writing import png
from flowferry.datasets.pixels import to_pil
from flowferry.pipelines.storage.files import write_png, write_text
from flowferry.pipelines.translation.files import LoadedImage, reading_of_result
from flowferry.pipelines.translation.translator import Translator
from flowferry.pipelines.visualization.grids import Row, caption, path_frames, save_gif, sheet

log = logging.getLogger("flowferry")

ON_SHEET, IN_GIF, ON_PAGE = 64, 16, 64  # images to show, at most
ACROSS = 16  # images in a row of the sheet
VARIANTS = 8  # results of an image to show, at most
SIDE = 160  # pixels of an image's longer side on the sheet and in the GIF, where each has a size of its own
LARGEST = 512  # pixels of an image's longer side on the page, at most


class Translated(NamedTuple):
    """A translated file, the image as the network gets it, and the files with its results, a variant each."""

    before: Path
    loaded: LoadedImage
    after: list[Path]


def show(translator: Translator, tree: Tree, output: Path, names: Sequence[str]) -> None:
    """Write the galleries called `names`, keys of `WRITERS`, of the first translated images into `output`."""
    for name in names:
        if some := list(islice(translated(translator, tree, output), max(ON_SHEET, IN_GIF, ON_PAGE))):
            WRITERS[name](translator, some, output / name)
            log.info("shown in %s", output / name)


def translated(translator: Translator, tree: Tree, output: Path) -> Iterator[Translated]:
    """Yield each file of the tree that has its translations in `output`, in order."""
    for name, items in groupby(tree.walk(), key=lambda item: item.name):
        variants = sorted(items, key=lambda item: item.variant)
        loaded = translator.load(tree.root, None, (variants[0], None))
        after = [output / item.output for item in variants[:VARIANTS]]
        if isinstance(loaded, LoadedImage) and all(file.is_file() for file in after):
            if max(loaded.image.shape) > LARGEST and translator.sizes.own:  # all of them are held at once
                loaded = loaded._replace(image=scaled(loaded.image, LARGEST))
            yield Translated(tree.root / name, loaded, after)


def write_sheet(translator: Translator, some: list[Translated], file: Path) -> None:
    """Write a sheet: rows of images as the network gets them, each above its results."""
    config, own = translator.pipeline.config, translator.sizes.own
    shape: Any = (config.shape[0], SIDE, SIDE) if own else config.shape
    framing: Any = {"resize": "fit", "background": "white"} if own else {"resize": "stretch"}
    framed = replace(translator.reading, **framing)
    rows: list[Row] = []
    for start in range(0, min(len(some), ON_SHEET), ACROSS):
        part = some[start : start + ACROSS]
        rows.append(("before", torch.stack([on_white(one.loaded.image) if own else one.loaded.image for one in part])))
        for number, files in enumerate(zip(*(one.after for one in part), strict=True), start=1):
            label = "after" if len(part[0].after) == 1 else f"after, {translator.transform.name_of(number)}"
            seen = [
                load_image(after, shape, reading_of_result(after.name, one.loaded.stored, framed))
                for one, after in zip(part, files, strict=True)
            ]
            rows.append((label, torch.stack(seen)))
    write_png(file, sheet(rows, caption(config, translator.transform.told), scale=1 if own else 2))


def write_gif(translator: Translator, some: list[Translated], file: Path) -> None:
    """Write a GIF of all images moving from the input to the result at once; variants in a row."""
    of_each = len(some[0].after)
    some = some[: max(1, IN_GIF // of_each)]
    variants, own = range(1, of_each + 1), translator.sizes.own
    if own:
        points = torch.stack([scaled_trajectory(translator, one, k) for one in some for k in variants], dim=1)
    else:
        points = together([along(translator, [one.loaded.image for one in some], k) for k in variants])
    across = of_each if of_each > 1 else max(1, round(len(some) ** 0.5))
    grid = max((translator.transform.grid(k) for k in variants), key=len)
    how: Any = {"across": across, "scale": 1 if own else 4}
    save_gif(path_frames(translator.pipeline.config, points, grid, **how), file)


def along(translator: Translator, images: list[Tensor], variant: int) -> Tensor:
    """Return a variant of images [C, H, W] at every time of its grid: [N + 1, B, C, H, W]."""
    return torch.stack(list(translator.trajectory(images, [variant] * len(images))))


def together(trajectories: list[Tensor]) -> Tensor:
    """Return trajectories [N_k + 1, B, C, H, W] of K variants as one [N + 1, B·K, C, H, W], an image's side by side.

    They end together: the shorter ones, which start later, wait at their start.
    """
    longest = max(map(len, trajectories))
    waiting = [torch.cat([x[:1].expand(longest - len(x), *x.shape[1:]), x]) for x in trajectories]
    return torch.stack(waiting, dim=2).flatten(1, 2)


def scaled_trajectory(translator: Translator, one: Translated, variant: int) -> Tensor:
    """Return an image, translated at its own size, at every time of the grid: [num_steps + 1, C, SIDE, SIDE]."""
    loaded = translator.load(one.before.parent, None, (Item(one.before.name), None))
    assert isinstance(loaded, LoadedImage), "it was translated just now"
    return torch.stack([on_white(x[0]) for x in translator.trajectory([loaded.image], [variant])])


def write_page(translator: Translator, some: list[Translated], file: Path) -> None:
    """Write an HTML page without other files: each image with a slider between before and after, for each result."""
    cards = []
    for one in some[:ON_PAGE]:
        original = translator.restore_size
        image = to_tensor(translator.original(one.before).pixels) if original else one.loaded.image
        name, before = html.escape(escaped(one.loaded.item.name), quote=True), data_url(image)
        results = [to_tensor(translator.result(after, one.loaded).pixels) for after in one.after]
        pairs = [PAIR.substitute(name=name, before=before, after=data_url(result)) for result in results]
        cards.append(CARD.substitute(name=name, kind="variants" * (len(pairs) > 1), pairs="\n".join(pairs)))
    config = translator.pipeline.config
    told = html.escape(caption(config, translator.transform.told, f"the first {len(cards)} images"))
    page = PAGE.substitute(title=html.escape(config.name), told=told, cards="\n".join(cards))
    write_text(file, page)


def scaled(image: Tensor, side: int) -> Tensor:
    """Return an image [C, H, W] whose longer side is scaled to `side` pixels."""
    height, width = image.shape[1:]
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def on_white(image: Tensor) -> Tensor:
    """Return an image [C, H, W] scaled into the middle of white: [C, SIDE, SIDE]."""
    fitted = scaled(image, SIDE)
    down, right = (SIDE - length for length in fitted.shape[1:])
    return F.pad(fitted, (right // 2, right - right // 2, down // 2, down - down // 2), value=1.0)


def data_url(image: Tensor) -> str:
    """Return an image [C, H, W] in [-1, 1] as a PNG in a data URL, at most LARGEST pixels on its longer side."""
    small = to_pil(image)
    small.thumbnail((LARGEST, LARGEST))
    return "data:image/png;base64," + base64.b64encode(png(small)).decode()


PAIR = Template("""\
    <div class="pair">
      <img src="$before" alt="$name before">
      <img class="after" src="$after" alt="$name after">
      <i></i>
      <input type="range" min="0" max="100" value="50" aria-label="$name: from before to after">
    </div>""")

CARD = Template("""\
<figure class="$kind">
  <div>
$pairs
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
  .variants { grid-column: 1 / -1; }
  .variants > div { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 11rem)); gap: .6rem; }
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

WRITERS: dict[str, Callable[[Translator, list[Translated], Path], None]] = {
    "sheet.png": write_sheet,
    "path.gif": write_gif,
    "index.html": write_page,
}
