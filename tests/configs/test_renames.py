"""Names of version 0.1: in configurations, and on command lines. With whole runs of that version: test_old_runs.py."""

from copy import deepcopy
from dataclasses import replace

import pytest

from flowferry.configs.components import SyntheticColorsConfig, SyntheticDigitsConfig, SyntheticGarmentsConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.renames import RENAMED, RENAMED_KINDS, with_current_flags, with_current_names
from flowferry.configs.schema import COMPONENTS, Config
from flowferry.configs.validation import UserError

LABELS = PIPELINES["fashion2mnist-labels"]


def test_only_the_old_names_are_missing_today():
    data = LABELS.to_dict()
    for old, new in RENAMED.items():
        *outer, name = new.split(".")
        inner = data
        for part in outer:
            inner = inner.get(part, {"augment": {"cutout": 0}, "cutout": 0})  # the target's, here, has none
        assert name in inner and old.rpartition(".")[2] not in inner
    assert set(RENAMED_KINDS.values()) <= COMPONENTS["source"].keys()
    assert not RENAMED_KINDS.keys() & COMPONENTS["source"].keys()


# --- configurations --------------------------------------------------------------------------------------


def in_old_names(config: Config) -> dict:
    """The dictionary that version 0.1 would have written of a translation of garments."""
    data = config.to_dict()
    data["classes"], data["read_labels"] = data.pop("num_classes"), data.pop("infer_labels")
    data["solver"]["steps"] = data["solver"].pop("num_steps")
    data["source"]["augment"]["hidden"] = data["source"]["augment"].pop("cutout")
    if data.pop("objective") == "one-step":
        data["path"] = "one-step"
    return data


@pytest.mark.parametrize("objective", ["flow", "one-step"])
def test_an_old_configuration_is_read(objective):
    augment = replace(LABELS.source.augment, cutout=7)
    config = replace(LABELS, objective=objective, source=replace(LABELS.source, augment=augment))
    old = in_old_names(config)
    before = deepcopy(old)
    assert Config.from_dict(old) == config
    assert old == before, "what is read is not changed"
    assert Config.from_dict(with_current_names(config.to_dict())) == config, "nor is what has today's names"


@pytest.mark.parametrize(
    ("kind", "component"),
    [
        ("drawn-digits", SyntheticDigitsConfig(count=5)),
        ("drawn-garments", SyntheticGarmentsConfig(count=5)),
        ("drawn-colours", SyntheticColorsConfig(count=5)),
    ],
)
def test_an_old_kind_is_read(kind, component):
    data = LABELS.to_dict() | {"source": {"kind": kind, "count": 5}, "target": {"kind": kind, "count": 5}}
    assert Config.from_dict(data) == replace(LABELS, source=component, target=component)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, {}),
        ({"classes": 3, "num_classes": 4}, {"num_classes": 4}),
        ({"solver": None}, {"solver": None}),
        ({"solver": {"steps": 3, "name": "euler"}}, {"solver": {"num_steps": 3, "name": "euler"}}),
        ({"source": {"augment": 3}}, {"source": {"augment": 3}}),
        ({"source": {"hidden": 3}}, {"source": {"hidden": 3}}),
        ({"target": {"augment": {"hidden": 3}}}, {"target": {"augment": {"cutout": 3}}}),
        ({"name": "classes", "steps": 3}, {"name": "classes", "steps": 3}),
    ],
)
def test_only_entries_in_their_old_places_are_renamed(data, expected):
    assert with_current_names(data) == expected


# --- command lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--classes 10", "--num-classes 10"),
        ("--classes=10", "--num-classes=10"),
        ("--solver.steps 3", "--solver.num-steps 3"),
        ("--solver.steps=3", "--solver.num-steps=3"),
        ("--read-labels", "--infer-labels"),
        ("--read_labels", "--infer-labels"),
        ("--no-read-labels", "--no-infer-labels"),
        ("--no-read_labels", "--no-infer-labels"),
        ("--source.augment.hidden 4 --target.augment.hidden=5", "--source.augment.cutout 4 --target.augment.cutout=5"),
        ("--name classes --summary=--classes", "--name classes --summary=--classes"),
        ("--steps 3 --train.max_steps=4", "--steps 3 --train.max_steps=4"),
        ("--path one-step", "--path one-step --objective flow"),  # the path then makes it the objective one-step
        ("--path=linear", "--path=linear --objective flow"),
        ("--objective one-step --path linear", "--objective one-step --path linear"),
        ("", ""),
    ],
)
def test_old_flags_become_those_of_today_and_values_stay(old, new):
    argv = old.split()
    assert with_current_flags(argv) == new.split()
    assert argv == old.split()


def test_an_old_command_line_asks_for_the_same(printed_config):
    options = "--classes 10 --solver.steps=3 --no-read-labels --source drawn-garments --target=drawn-digits"
    config = printed_config("--pipeline", "fashion2mnist-labels", *options.split())
    assert (config.num_classes, config.solver.num_steps, config.infer_labels) == (10, 3, False)
    assert (config.source.kind, config.target.kind) == ("synthetic-garments", "synthetic-digits")
    config = printed_config("--pipeline", "noise2cifar", "--target", "drawn-colours", "--target.count", "7")
    assert config.target == SyntheticColorsConfig(count=7)


def test_the_path_alone_chooses_the_objective_as_it_did(printed_config):
    """Also of a pipeline that takes one step: another path there asked for a flow."""
    asked = {
        "--path one-step": ("linear", "one-step"),
        "--path linear": ("linear", "flow"),
        "--path cosine": ("cosine", "flow"),
        "--path cosine --objective one-step": ("cosine", "one-step"),
        "--seed 1": ("linear", "one-step"),
    }
    for options, expected in asked.items():
        config = printed_config("--pipeline", "denoise-mnist", *options.split())
        assert (config.path, config.objective) == expected, options


def test_an_old_flag_with_a_wrong_value_is_named_as_it_is_called_today(error_of):
    assert error_of("--pipeline", "moons", "--solver.steps", "few").startswith("--solver.num-steps: ")
    with pytest.raises(UserError, match=r"^num_classes: got -1, expected a number ≥ 0$"):
        Config.from_dict(in_old_names(LABELS) | {"classes": -1})
