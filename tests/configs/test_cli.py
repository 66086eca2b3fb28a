"""What a command line asks for: a named configuration, its components swapped, then each field overridden."""

import contextlib
import json
import re
from dataclasses import replace

import pytest

from flowferry.configs import parse_errors
from flowferry.configs.cli import named_config, parse, parse_train
from flowferry.configs.networks import PatchUNetConfig
from flowferry.configs.options import SampleOptions, TranslateOptions
from flowferry.configs.presets import PIPELINES
from flowferry.configs.validation import UserError

PUBLISHED = "fashion2mnist-published"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_printed_configuration_is_the_preset(printed_config, name):
    assert printed_config("--pipeline", name) == PIPELINES[name]


def test_options_override_the_preset_field_by_field(printed_config):
    argv = ["--pipeline", "noise2mnist", "--train.lr", "0.5", "--path", "cosine", "--seed", "7", "--train.minutes", "2"]
    config = printed_config(*argv)
    assert (config.train.lr, config.path, config.seed, config.train.minutes) == (0.5, "cosine", 7, 2.0)
    assert config.train.batch_size == PIPELINES["noise2mnist"].train.batch_size


def test_parts_are_swapped_by_name_and_then_adjusted(printed_config):
    argv = ["--pipeline", "noise2mnist", "--model", "practical-unet", "--model.width", "8", "--source", "fashion-mnist"]
    config = printed_config(*argv)
    assert (config.model.kind, config.model.width, config.source.kind) == ("practical-unet", 8, "fashion-mnist")


@pytest.mark.parametrize("name", ["fashion2mnist", "noise2mnist-cfg"])
def test_distill_takes_the_options_of_the_weights_which_are_those_of_the_named_student(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)  # where nothing was trained, so that the shipped weights are found
    shipped = parse_train(["--pipeline", name], verb="distill")
    assert shipped.config == PIPELINES[f"{name}-fast"] and str(shipped.folder) == f"runs/{name}-fast"

    wide = replace(PIPELINES[name], model=PatchUNetConfig(widths=(64, 128)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps({"config": wide.to_dict()}))
    own = parse_train(["--pipeline", "mine", "--train.minutes", "3"], verb="distill").config
    assert own.model == wide.model and own.teacher.pipeline == "mine" and own.train.minutes == 3
    assert own.solver.num_steps == 1 and own.train.source_noise == own.solver.source_noise == wide.solver.source_noise


def test_distill_needs_trained_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^no weights in runs/noise2mnist: train them first"):
        parse_train(["--pipeline", "noise2mnist"], verb="distill")


def test_quick_changes_the_data_and_the_budget_and_not_the_network(printed_config):
    config = printed_config("--pipeline", PUBLISHED, "--quick", "--train.lr", "0.25")
    assert config.is_synthetic and config.train.minutes == 1.0 and config.train.lr == 0.25
    assert config.model == PIPELINES[PUBLISHED].model


def test_the_last_of_two_values_counts(printed_config):
    assert printed_config("--pipeline", "moons", "--seed", "1", "--seed", "2").seed == 2


def test_a_named_root_needs_no_stand_in(printed_config):
    config = printed_config("--pipeline", "folders", "--quick", "--source.root", "a")
    assert (config.source.kind, config.source.root, config.target.kind) == ("image-folder", "a", "synthetic-colors")


def test_the_folder_of_a_run_is_that_of_its_pipeline(tmp_path):
    assert str(parse_train(["--pipeline", "moons"]).folder) == "runs/moons"
    assert str(parse_train(["--pipeline", "moons", "--quick"]).folder) == "runs/moons-quick"
    assert parse_train(["--pipeline", "moons", "--output-dir", str(tmp_path)]).folder == tmp_path


def test_neither_a_name_nor_a_run_is_no_configuration(tmp_path):
    for pipeline in ("", "nowhere", str(tmp_path)):
        with pytest.raises(UserError, match=r", moons, gaussian2d, or (a|the) folder (of a run|with a config\.json)$"):
            named_config(pipeline)


def test_help_needs_no_pipeline(capsys):
    """And shows the options of one, so that nobody has to know a name to see them."""
    for argv in (["--help"], ["-h"], ["--help", "--pipeline", "folders"]):
        with pytest.raises(SystemExit) as leaving:
            parse_train(argv)
        told = capsys.readouterr()
        assert leaving.value.code == 0 and told.err == ""
        assert "--train.lr" in told.out
        assert ("--source.resize" in told.out) == ("folders" in argv)


LAYOUTS = [  # options -> root and layout of the source and of the target
    ("--root r", ("r", "auto"), ("r", "auto")),
    ("--root r --source.root s", ("s", "auto"), ("r", "auto")),
    ("--root r --direction BtoA", ("r", "B"), ("r", "A")),
    ("--root r --layout side-by-side", ("r", "left"), ("r", "right")),
    ("--root r --layout side-by-side --direction BtoA", ("r", "right"), ("r", "left")),
    ("--source.root s --layout side-by-side", ("s", "left"), ("s", "right")),
    ("--source.root s --target.root t --layout {split}/{name}", ("s", "{split}/{name}"), ("t", "{split}/{name}")),
    ("--root r --layout auto --target.layout {name}_B", ("r", "auto"), ("r", "{name}_B")),
]


@pytest.mark.parametrize(("options", "source", "target"), LAYOUTS, ids=[options for options, *_ in LAYOUTS])
def test_options_of_both_sides_are_short_for_those_of_each(options, source, target, printed_config):
    config = printed_config("--pipeline", "paired", *options.split())
    assert [(side.root, side.layout) for side in (config.source, config.target)] == [source, target]


NOT_BOTH = [
    (
        "paired",
        "--source.root a --target.root b --direction BtoA",
        "--direction: got BtoA, expected one folder of both",
    ),
    ("paired", "--root a --layout {name}_A --direction BtoA", "--direction: got BtoA, expected one folder"),
    ("noise2mnist", "--root a", "--root: got a for noise2mnist, expected a pipeline with a folder, such as paired"),
    ("paired", "--root a --layout side", "layout: got 'side', expected auto, A, B, left, right, or a pattern"),
]


@pytest.mark.parametrize(("pipeline", "options", "message"), NOT_BOTH)
def test_options_of_both_sides_that_do_not_fit_are_refused(pipeline, options, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        parse_train(["--pipeline", pipeline, *options.split()])


# --- what is wrong ---------------------------------------------------------------------------------------

MISTAKES = [
    (["--pipeline", "fashion2mnits"], ["got 'fashion2mnits'", *PIPELINES]),
    (["--pipeline", PUBLISHED, "--train.lrr", "1"], ["--train.lrr", "did you mean --train.lr"]),
    (["--pipeline", PUBLISHED, "--train.lr", "x"], ["--train.lr: ", "'x'"]),
    (["--pipeline", PUBLISHED, "--train.lr", "-1"], ["lr: got -1.0", "> 0"]),
    (
        ["--pipeline", PUBLISHED, "--train.schedule", "x"],
        ["--train.schedule: got 'x'", "constant, cosine, exponential, linear"],
    ),
    (["--pipeline", PUBLISHED, "--model", "x"], ["unknown --model: got 'x'", "practical-unet, course-unet"]),
    (["--train.lr", "1"], ["--pipeline is missing", *PIPELINES]),
    (
        ["sample", "--pipeline", "noise2mnist-cfg-published", "--solver", "eulr"],
        ["--solver: got 'eulr'", "euler", "midpoint", "heun", "rk4"],
    ),
    (["sample", "--pipeline", "noise2mnist-cfg-published", "--steps", "0"], ["steps: got 0", "≥ 1"]),
]


@pytest.mark.parametrize(
    ("argv", "named"), MISTAKES, ids=lambda value: " ".join(value)[:40] if value[0].isascii() else None
)
def test_mistakes_are_told_in_one_line(error_of, argv, named):
    told = error_of(*argv)
    assert all(part in told for part in named), told


TYPOS = [
    (PUBLISHED, "--train.lrr 1", "unrecognized option --train.lrr, did you mean --train.lr?"),
    (PUBLISHED, "--train.lrr=1", "unrecognized option --train.lrr, did you mean --train.lr?"),
    (PUBLISHED, "--lr 1", "unrecognized option --lr, did you mean --train.lr?"),
    (PUBLISHED, "--train.batch_sizes 8", "unrecognized option --train.batch_sizes, did you mean --train.batch-size?"),
    ("fashion2mnist-labels", "--infer-label", "unrecognized option --infer-label, did you mean --no-infer-labels?"),
    (PUBLISHED, "--source.count 1", "unrecognized option --source.count"),
    (PUBLISHED, "--resize 1", "unrecognized option --resize"),
    ("folders", "--resize 1", "unrecognized option --resize, did you mean --source.resize or --target.resize?"),
    (PUBLISHED, "stray", "unrecognized: stray"),
    (PUBLISHED, "--train.lr", "--train.lr: got too few values, expected FLOAT"),
    (PUBLISHED, "--path ddmp", "--path: got 'ddmp', expected one of cosine, ddpm, linear, one-step"),
]


@pytest.mark.parametrize(("pipeline", "options", "message"), TYPOS, ids=[options for _, options, _ in TYPOS])
def test_an_option_that_is_not_understood_is_answered_with_the_nearest(error_of, pipeline, options, message):
    assert error_of("--pipeline", pipeline, *options.split()) == message


def test_required_options_that_are_missing_are_named():
    with pytest.raises(UserError, match=r"^missing: --pipeline$"):
        parse(SampleOptions, [], "sample")
    told = r"^missing: --pipeline, --output; unrecognized option --inputs, did you mean --input\?$"
    with pytest.raises(UserError, match=told):
        parse(TranslateOptions, ["--inputs", "a", "--input", "b"], "translate")


@pytest.mark.parametrize(
    ("options", "named"),
    [("--train.lrr 1", "--train.lrr"), ("--train.schedule x", "--train.schedule"), ("--train.lr", "--train.lr")],
)
def test_a_tyro_that_keeps_its_events_to_itself_is_read_from_what_it_prints(error_of, monkeypatch, options, named):
    monkeypatch.setattr(parse_errors, "on_parse_error", lambda hook: contextlib.nullcontext())
    told = error_of("--pipeline", PUBLISHED, *options.split())
    assert named in told and not set(told) & set("╭╮│╰╯─\x1b")
