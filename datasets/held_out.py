"""Which images of a folder are held out of training, for the split "test"."""

from collections import Counter
from collections.abc import Collection

from flowferry.datasets.rng import derive_seed

HELD_OUT = 10  # one image in this many


def hold_out(stems: Collection[str]) -> frozenset[str]:
    """Return the tenth of the images, at least one, that is held out; it is chosen by their stems alone.

    stems: relative paths without endings. If each lies in a sub-folder, at least one image of each sub-folder at the
    first level, which is a class, stays in training. So none is returned where there is but one image of each.
    """
    labeled = all("/" in stem for stem in stems)
    class_of = {stem: stem.split("/")[0] if labeled else "" for stem in stems}
    in_training = Counter(class_of.values())
    held_out: set[str] = set()
    for stem in sorted(stems, key=lambda stem: derive_seed("held out", stem)):
        if len(held_out) < max(1, len(stems) // HELD_OUT) and in_training[class_of[stem]] > 1:
            held_out.add(stem)
            in_training[class_of[stem]] -= 1
    return frozenset(held_out)
