"""What a smoke test makes of the named pipelines: configs/derived.py. Students: training/test_teacher.py."""

from dataclasses import replace

import pytest

from flowferry.configs.components import ImageFolderConfig, SyntheticColorsConfig
from flowferry.configs.derived import smoke_test
from flowferry.configs.presets import PIPELINES

EACH = pytest.mark.parametrize("name", PIPELINES)


@EACH
def test_a_smoke_test_needs_no_files_and_about_a_minute(name):
    config, quick = PIPELINES[name], smoke_test(PIPELINES[name])
    for side in ("source", "target"):
        before, after = getattr(config, side), getattr(quick, side)
        assert after == (before.stand_in or before) and after.stand_in is None
    assert quick.train.minutes == 1.0 and quick.solver.num_steps == min(50, config.solver.num_steps)
    assert quick.train.show_epochs == quick.train.checkpoint_epochs == 0, "only at the end"
    assert smoke_test(quick) == quick


@EACH
def test_a_smoke_test_trains_the_same_network_for_the_same(name):
    config, quick = PIPELINES[name], smoke_test(PIPELINES[name])
    changed = {"source", "target", "solver", "train", *(["teacher"] if config.has_teacher else [])}
    assert {k: v for k, v in vars(quick).items() if k not in changed} == {
        k: v for k, v in vars(config).items() if k not in changed
    }
    budget = ("minutes", "batch_size", "ema", "show_epochs", "checkpoint_epochs")
    assert quick.train == replace(config.train, **{field: getattr(quick.train, field) for field in budget})
    assert quick.solver == replace(config.solver, num_steps=quick.solver.num_steps)
    assert quick.teacher == replace(config.teacher, pairs=quick.teacher.pairs)


def test_a_smoke_test_of_a_folder_that_is_named_reads_it():
    named = replace(PIPELINES["folders"], source=ImageFolderConfig(root="mine"))
    quick = smoke_test(named)
    assert quick.source == named.source and quick.target == SyntheticColorsConfig()
