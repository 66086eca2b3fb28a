"""What a translation of a folder tells the user: a bar while it runs, and a few lines at its end."""

import logging
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from flowferry.datasets.file_tree import Tree
from flowferry.datasets.image_io import NOTES
from flowferry.pipelines.translation.files import Result
from flowferry.pipelines.translation.manifest import FAILURES

log = logging.getLogger("flowferry")

LISTED = 10  # failures to log; failures.jsonl lists all of them


def translation_bar(total: int, verb: str, *, shown: bool) -> tqdm:
    """Return the progress bar of `total` files. It is drawn anew at each block of them, however long that takes."""
    return tqdm(total=total, desc=verb, unit="image", dynamic_ncols=True, miniters=1, disable=not shown)


def tally(counts: Counter[str], results: list[Result]) -> None:
    """Count the results of one image by their status, and what was worth telling of it; log the first failures."""
    failed = [result.entry for result in results if result.status == "failed"]
    counts.update(result.status for result in results if result.status != "failed")
    counts.update({note for result in results for note in result.entry.get("notes", [])})
    if failed:  # all variants of an image for the same reason
        counts["failed"] += 1
        if counts["failed"] <= LISTED:
            log.warning("failed: %s: %s", failed[0]["input"], failed[0]["error"])


def summarize(counts: Counter[str], tree: Tree, output: Path, *, done: str, nfe: int, seconds: float) -> None:
    """Log in a few lines how many files were `done`, such as "translated", were there already, failed or skipped."""
    speed = f" at {counts['translated'] / seconds:.1f} images/s" if counts["translated"] else ""
    parts = [f"{counts['translated']:,} {done}{speed}, NFE {nfe}"]
    parts += [f"{counts[status]:,} {status}" for status in ("already there", "failed") if counts[status]]
    log.info("%s: %s", output, "; ".join(parts))
    if skipped := tree.describe_skipped("--follow-links"):
        log.info("%s", skipped)
    for note in sorted(NOTES.keys() & counts.keys()):
        log.info("%s had %s", f"{counts[note]:,}", NOTES[note])
    if counts["failed"]:
        log.warning("what failed, and why: %s", output / FAILURES)
