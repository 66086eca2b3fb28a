"""Which changes make another training, and the command that trains a configuration (see also test_report.py)."""

import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flowferry.configs.cli import parse_train
from flowferry.configs.components import ImageFolderConfig, NoisyConfig
from flowferry.configs.diff import changed_options, leaves, refuse_changes, training_command
from flowferry.configs.networks import AttentionUNetConfig, PatchUNetConfig
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig, TrainConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError

RUN = Path("runs/it")
FOLDERS = PIPELINES["folders"]
NAMED = replace(FOLDERS, source=ImageFolderConfig(classes=("a",)), target=ImageFolderConfig(classes=("b",)))
NAMES = dict(leaves(NAMED.to_dict()))
MAY_CHANGE = set(
    """
    name summary source.cache_mb target.cache_mb source.on_bad_file target.on_bad_file
    source.max_pixels target.max_pixels source.strict target.strict
    solver.name solver.num_steps solver.grid_power solver.stride solver.guidance solver.source_noise
    solver.variance solver.clip solver.threshold
    train.epochs train.max_steps train.minutes
    train.accumulate train.precision train.threads train.on_nonfinite
    train.checkpoint_epochs train.checkpoint_steps train.keep_checkpoints train.show_epochs train.min_steps_apart
    train.eval_samples train.best train.weaker_share
    """.split()
)


def another(value: object) -> object:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return 1
        case str():
            return value + "x"
        case tuple():
            return (*value, value[-1])
    raise AssertionError(value)


def changed(config: Config, name: str) -> Config:
    """A configuration that differs in one leaf, whether or not such a one could be made."""
    data = config.to_dict()
    *outer, last = name.split(".")
    inner = data
    for part in outer:
        inner = inner[part]
    inner[last] = another(inner[last])
    stranger = object.__new__(Config)
    object.__setattr__(stranger, "to_dict", lambda: data)
    return stranger


def test_leaves_are_the_options_by_their_names():
    assert dict(leaves({"a": 1, "b": {"c": (2, 3), "d": {"e": None}}})) == {"a": 1, "b.c": (2, 3), "b.d.e": None}
    assert NAMES["train.lr"] == FOLDERS.train.lr and NAMES["source.augment.cutout"] == 0
    assert NAMES.keys() >= MAY_CHANGE, "what may change is there to be changed"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_does_not_change_the_training_may_change(name):
    now = changed(NAMED, name)
    if name in MAY_CHANGE:
        refuse_changes(NAMED, now, RUN)
        return
    old, new = NAMES[name], another(NAMES[name])
    with pytest.raises(UserError) as told:
        refuse_changes(NAMED, now, RUN)
    assert str(told.value) == (
        f"runs/it holds another run: {name} (got {new}, started with {old}); expected the same, or another --output-dir"
    )


def test_the_same_training_is_accepted():
    for config in PIPELINES.values():
        refuse_changes(config, replace(config), RUN)
        refuse_changes(config, replace(config, solver=SolverConfig(num_steps=3), summary="other words"), RUN)


def ordered(*classes):
    return replace(FOLDERS, target=ImageFolderConfig(classes=classes))


def test_a_run_that_kept_no_names_of_its_classes_had_them_in_alphabetical_order():
    refuse_changes(FOLDERS, ordered("1", "10", "2"), RUN)
    told = r"target.classes \(got \('1', '2', '10'\), started with \('1', '10', '2'\)\)"
    with pytest.raises(UserError, match=told):
        refuse_changes(FOLDERS, ordered("1", "2", "10"), RUN)


def test_the_command_names_classes_only_in_an_order_of_their_own():
    assert "--target.classes 1 10 2" in training_command(ordered("1", "10", "2"), RUN)
    assert "classes" not in training_command(ordered("1", "2", "10"), RUN)


def test_each_change_is_named_once_also_of_options_that_only_one_of_them_has():
    before = PIPELINES["noise2mnist"]
    now = replace(before, source=NoisyConfig(), train=replace(before.train, lr=0.5))
    with pytest.raises(UserError) as told:
        refuse_changes(before, now, RUN)
    assert str(told.value) == (
        "runs/it holds another run: source.kind (got noisy, started with gaussian); "
        "source.mean (got None, started with 0.0); source.std (got None, started with 1.0); "
        "train.lr (got 0.5, started with 0.003); source.sigma (got 0.5, started with None); "
        "expected the same, or another --output-dir"
    )


# --- the command that trains it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (TrainConfig(), TrainConfig(), ""),
        (TrainConfig(), TrainConfig(lr=0.5, batch_size=8), "--train.batch-size 8 --train.lr 0.5"),
        (TrainConfig(), TrainConfig(sync_batchnorm=True, ema=None), "--train.sync-batchnorm --train.ema None"),
        (TrainConfig(sync_batchnorm=True), TrainConfig(), "--train.no-sync-batchnorm"),
        (PatchUNetConfig(), PatchUNetConfig(widths=(8, 16, 24)), "--train.widths 8 16 24"),
    ],
)
def test_options_are_those_that_differ(before, after, words):
    assert changed_options(asdict(before), asdict(after), "train.") == words.split()


def test_the_command_gives_lists_word_by_word_and_folders_as_they_are_written():
    model = AttentionUNetConfig(widths=(16, 32, 64, 64), attention=(False, True, True), middle=32)
    config = replace(FOLDERS, model=model, source=ImageFolderConfig(root="my images", background="#ff00aa"))
    command = training_command(config, Path("elsewhere"))
    assert "--source.root 'my images'" in command and "--model.widths 16 32 64 64" in command
    options = parse_train(shlex.split(command)[3:])
    assert options.config == config and options.folder == Path("elsewhere")


def test_a_pipeline_without_a_name_is_trained_from_its_folder():
    config = replace(FOLDERS, name="mine")
    assert training_command(config, Path("runs/mine")) == "accelerate launch launch.py --pipeline runs/mine"
    command = training_command(config, Path("else where"))
    assert command == "accelerate launch launch.py --pipeline 'else where' --output-dir 'else where'"
