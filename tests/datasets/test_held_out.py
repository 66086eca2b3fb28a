"""Which images are held out, by their names: datasets/held_out.py."""

import pytest

from flowferry.datasets.held_out import hold_out
from flowferry.datasets.rng import derive_seed


@pytest.mark.parametrize("per_class", [[1, 9], [1, 1, 8], [2, 2, 2, 2, 2, 10], [1, 1, 1, 1, 36], [2] * 15])
def test_each_class_keeps_an_image_in_training_and_the_split_is_the_old_one_where_it_did(
    per_class: list[int],
) -> None:
    """By hash alone, as it was before, every image of a small class may be held out, and often is."""
    emptied = 0
    for number in range(30):
        stems = [f"{number}-{c}/{i}" for c, count in enumerate(per_class) for i in range(count)]
        held_out = hold_out(stems)
        by_hash = sorted(stems, key=lambda stem: derive_seed("held out", stem))[: max(1, len(stems) // 10)]
        classes = {stem.split("/")[0] for stem in stems}
        assert {stem.split("/")[0] for stem in stems if stem not in held_out} == classes
        assert len(held_out) == max(1, len(stems) // 10)
        if {stem.split("/")[0] for stem in stems if stem not in by_hash} == classes:
            assert held_out == set(by_hash)
        else:
            emptied += 1
    assert emptied, "else there was nothing to tell apart"
