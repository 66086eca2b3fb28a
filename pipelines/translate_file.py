"""One image file instead of a folder of them: where its results go, and what may be replaced there."""

import logging
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from flowferry.configs.file_options import FilesOptions
from flowferry.configs.locations import names_folder
from flowferry.configs.validation import UserError
from flowferry.datasets.file_tree import Item, numbered
from flowferry.datasets.image_io import NOTES
from flowferry.datasets.image_writing import WRITTEN, format_for, format_named
from flowferry.pipelines.storage.files import prepare_folder, write_aside
from flowferry.pipelines.translation.files import Loaded, LoadedImage, Result
from flowferry.pipelines.translation.translator import Translator

log = logging.getLogger("flowferry")


def one_file(translator: Translator, source: Path, options: FilesOptions) -> int:
    """Make a file of a file, whatever is there already, or put it into a folder; return the exit code."""
    for name in ("sheet", "gif", "html", "suffix"):
        if getattr(options, name):
            raise UserError(f"--{name}: got the one file {source}, expected a folder of images")
    paths = outputs_of(source, options, translator.transform.variants)
    loaded = loaded_file(translator, source, paths[0].name)
    if isinstance(loaded, Result):
        log.warning("failed: %s: %s", source, loaded.entry["error"])
        return 1
    prepare_folder(paths[0].parent, "--output")
    for path, data in zip(paths, encoded(translator, loaded, source.parent, len(paths)), strict=True):
        write_aside(path, data)
    for note in loaded.notes:
        log.info("%s had %s", source, NOTES[note])
    log.info("%s; NFE %d", ", ".join(map(str, paths)), translator.transform.nfe)
    return 0


def loaded_file(translator: Translator, source: Path, output: str) -> Loaded:
    """Read, check and frame an image file, which is to become one called `output`; errors become a failed result."""
    return translator.load(source.parent, None, (Item(source.name, output), None))


def encoded(translator: Translator, loaded: LoadedImage, root: Path, count: int) -> Iterator[bytes]:
    """Yield the first `count` variants of what becomes of a file under `root`, as the bytes of files."""
    results = translator.translate_batch([loaded.image] * count, range(1, count + 1))
    return (translator.encode(result, loaded, root) for result in results)


def outputs_of(source: Path, options: FilesOptions, count: int) -> list[Path]:
    """Return the `count` files that one input becomes.

    Raises UserError where one would replace the input, or another's file. Only a file that was named as it is may be
    replaced: not one in a folder, nor one with a variant's number.
    """
    path, into_folder = options.output, names_folder(options.destination)
    ending = WRITTEN[format_for(source.name, options.format)].endings[0]
    if into_folder:
        path = path / f"{source.stem}{ending}"
    elif (named := format_named(path.name)) is None:
        if path.suffix.lower() in Image.registered_extensions():
            endings = ", ".join(kind.endings[0] for kind in WRITTEN.values())
            raise UserError(f"--output: got {path}, expected a name that ends in {endings}")
        path = path.with_name(f"{path.name}{ending}")
    elif options.format not in (None, named):
        raise UserError(f"--output: got {path} beside --format {options.format}, expected a name that ends in {ending}")
    paths = [path.with_name(numbered(path.name, variant, of=count)) for variant in range(1, count + 1)]
    for path in paths:
        if path.resolve() == source.resolve():
            raise UserError(f"--output: got {path}, which is the input itself, expected another file")
        if (into_folder or count > 1) and path.exists() and not options.overwrite:
            other = "folder" if into_folder else "name"
            raise UserError(f"--output: got {path}, which is there already; expected another {other}, or --overwrite")
    return paths
