"""The named pipelines: configs/presets.py."""

import re

import pytest

from flowferry.configs.presets import PIPELINES

EACH = pytest.mark.parametrize("name", PIPELINES)


@EACH
def test_a_name_is_one_word_and_a_summary_one_line(name):
    config = PIPELINES[name]
    assert config.name == name and re.fullmatch(r"[a-z0-9-]+", name)
    assert config.summary and "\n" not in config.summary and len(config.summary) <= 100
