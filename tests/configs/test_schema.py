"""The configuration: what it accepts, and that it survives a trip through JSON."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from flowferry import launch
from flowferry.configs.components import (
    AugmentConfig,
    FashionMnistConfig,
    GaussianConfig,
    ImageFolderConfig,
    MnistConfig,
    NoisyConfig,
    augmentation_of,
)
from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import SolverConfig, TrainConfig
from flowferry.configs.schema import COMPONENTS, Config, pick_component, read_config
from flowferry.configs.validation import Range, UserError
from flowferry.pipelines.run_folder import without_augmentation

MOONS, DIGITS = PIPELINES["moons"], PIPELINES["noise2mnist"]
KINDS = {kind: cls for kinds in COMPONENTS.values() for kind, cls in kinds.items()}
CLASSES = {cls.__name__: cls for cls in (*KINDS.values(), AugmentConfig, SolverConfig, TrainConfig, Config)}
HINTS = {
    (name, field.name): get_type_hints(cls, include_extras=True)[field.name]
    for name, cls in CLASSES.items()
    for field in fields(cls)
    if field.init
}


def made(name: str, field: str, value: object) -> Any:
    """An instance of a class with one field set to `value`, in a tuple if that is what it holds."""
    hint = HINTS[name, field]
    value = (value,) if "tuple" in str(hint) else value
    return replace(DIGITS, **{field: value}) if name == "Config" else CLASSES[name](**{field: value})


# --- values ----------------------------------------------------------------------------------------------

BOUNDS = {
    at: bound for at, hint in HINTS.items() for bound in getattr(hint, "__metadata__", ()) if isinstance(bound, Range)
}


@pytest.mark.parametrize(("name", "field"), BOUNDS)
def test_a_number_out_of_its_range_is_refused_by_name(name, field):
    bound = BOUNDS[name, field]
    wrong = [bound.low - 1, float("nan"), float("inf"), float("-inf")]
    wrong += [bound.low] if bound.open_low else []
    wrong += [bound.high + 1] if bound.high < float("inf") else []
    for value in wrong:
        with pytest.raises(UserError, match=rf"^{field}: got {value}, expected a number [>≥] {bound.low:g}"):
            made(name, field, value)
    within = [value for value in (bound.low, bound.low + 0.5, bound.low + 1) if value not in wrong]
    for value in (value for value in within if value <= bound.high):
        assert made(name, field, value) is not None


LITERALS = {at: get_args(hint) for at, hint in HINTS.items() if get_origin(hint) is Literal}


@pytest.mark.parametrize(("name", "field"), LITERALS)
def test_a_word_that_is_not_among_the_choices_is_refused_by_name(name, field):
    choices = LITERALS[name, field]
    with pytest.raises(UserError, match=f"^{field}: got 'nothing', expected one of {', '.join(choices)}$"):
        made(name, field, "nothing")


def test_there_are_ranges_and_choices_to_check():
    assert len(BOUNDS) > 30 and len(LITERALS) > 8


def test_a_configuration_is_frozen():
    with pytest.raises(FrozenInstanceError):
        MOONS.train.lr = 1.0


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-flag", "a\nb", "a\\b"])
def test_a_name_that_cannot_be_a_folder_s_is_refused(name):
    with pytest.raises(UserError, match=r"^name: got .*, expected letters, digits, spaces and \. \+ - _$"):
        replace(MOONS, name=name)


# --- values that do not go together ------------------------------------------------------------------------


@pytest.mark.parametrize("config", [DIGITS, replace(MOONS, num_classes=2)], ids=["no classes", "no images"])
def test_labels_are_inferred_of_images_in_classes_only(config):
    with pytest.raises(UserError, match=r"^infer_labels: got \d+ classes of samples of shape \(.*\), expected images"):
        replace(config, infer_labels=True)
    assert replace(DIGITS, num_classes=10, infer_labels=True).infer_labels


def test_noise_is_added_to_images_alone():
    noisy = replace(DIGITS.solver, source_noise=0.4)
    with pytest.raises(UserError, match=r"^solver source_noise: got the source gaussian, expected images$"):
        replace(DIGITS, solver=noisy)
    assert replace(DIGITS, source=MnistConfig(), solver=noisy).solver.source_noise == 0.4


@pytest.mark.parametrize("source", [FashionMnistConfig(), GaussianConfig(std=2.0), GaussianConfig(mean=1.0)])
def test_a_solver_that_adds_noise_starts_from_unit_noise(source):
    ancestral = SolverConfig(name="ancestral")
    with pytest.raises(UserError, match=r"^solver ancestral: got .*Config\(.*\), expected the source GaussianConfig"):
        replace(DIGITS, source=source, solver=ancestral)
    assert replace(DIGITS, solver=ancestral).solver.adds_noise


def test_one_step_is_an_objective_however_it_is_asked_for():
    by_path, by_objective = (replace(DIGITS, **{what: "one-step"}) for what in ("path", "objective"))
    assert by_path == by_objective and (by_path.path, by_path.objective) == ("linear", "one-step")
    assert replace(DIGITS, path="cosine", objective="one-step").path == "cosine"


# --- what follows from it --------------------------------------------------------------------------------


def test_properties_that_follow_from_other_values():
    assert DIGITS.is_image and not MOONS.is_image
    assert DIGITS.starts_from_unit_noise and not PIPELINES["fashion2mnist"].starts_from_unit_noise
    assert not replace(DIGITS, source=GaussianConfig(std=2.0)).starts_from_unit_noise
    asked = {name: PIPELINES[name].asked_classes for name in ("noise2mnist", "noise2mnist-cfg", "fashion2mnist-labels")}
    assert asked == {"noise2mnist": 0, "noise2mnist-cfg": 10, "fashion2mnist-labels": 0}
    solvers = [SolverConfig(name=name) for name in ("euler", "rk4", "ancestral", "map")]
    assert [solver.adds_noise for solver in solvers] == [False, False, True, False]
    assert [solver.is_reversible for solver in solvers] == [True, True, False, False]


@pytest.mark.parametrize("side", ["source", "target"])
def test_data_is_synthetic_if_either_side_is(side):
    config = PIPELINES["fashion2mnist"]
    assert not config.is_synthetic and replace(config, **{side: getattr(config, side).stand_in}).is_synthetic


def test_without_augmentation_nothing_else_changes():
    augment = AugmentConfig(mirrored=True, cutout=3, behind="mirror")
    config = replace(PIPELINES["folders"], source=ImageFolderConfig(root="a", augment=augment))
    assert without_augmentation(config) == replace(config, source=ImageFolderConfig(root="a"))
    for name, preset in PIPELINES.items():
        augmented = augmentation_of(preset.target).changes
        assert (without_augmentation(preset).target == preset.target) is not augmented, name
        assert not augmentation_of(without_augmentation(preset).target).changes, name
    assert without_augmentation(PIPELINES["fashion2mnist-labels"]).source == FashionMnistConfig()


# --- as JSON ---------------------------------------------------------------------------------------------


def through_json(config: Config) -> Config:
    return Config.from_dict(json.loads(json.dumps(config.to_dict())))


@pytest.mark.parametrize("name", PIPELINES)
def test_a_configuration_survives_json(name):
    assert through_json(PIPELINES[name]) == PIPELINES[name]


@pytest.mark.parametrize("kind", COMPONENTS["source"])
def test_every_kind_of_data_survives_json(kind):
    """As the source; a kind that is made from the target can be nothing else."""
    config = replace(DIGITS, source=COMPONENTS["source"][kind]())
    assert through_json(config) == config and config.source.kind == kind


@pytest.mark.parametrize("kind", COMPONENTS["model"])
def test_every_kind_of_network_survives_json(kind):
    config = replace(DIGITS, model=COMPONENTS["model"][kind]())
    assert through_json(config) == config and config.model.kind == kind


def test_an_entry_that_is_left_out_has_its_default():
    """So that a configuration of an older version is read after an option has been added."""
    data = MOONS.to_dict()
    for name in ("seed", "solver", "train", "allow_unmatched", "num_classes"):
        del data[name]
    del data["target"]["noise"]
    config = Config.from_dict(data)
    assert config == replace(MOONS, solver=SolverConfig(), train=TrainConfig())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"^not a configuration of this version: .*colour"),
        ({"seed": "3"}, r"^not a configuration of this version: .*seed"),
        ({"train": {"lr": "fast"}}, r"^not a configuration of this version: .*lr"),
        ({"train": {"lr": -1.0}}, r"^lr: got -1\.0, expected a number > 0$"),
        ({"train": {"lrr": 1.0}}, r"^not a configuration of this version: .*lrr"),
        ({"source": {"kind": "nothing"}}, r"^unknown source kind: got 'nothing', expected one of gaussian, "),
        ({"source": {}}, r"^unknown source kind: got '', expected one of gaussian, "),
        ({"source": "gaussian"}, r"^source: got 'gaussian', expected an object with its kind and options$"),
        ({"model": {"kind": "mlp", "depth": 3}}, r"^not a configuration of this version: .*depth"),
        ({"model": {"kind": "mnist"}}, r"^unknown model kind: got 'mnist', expected one of practical-unet, "),
    ],
)
def test_an_entry_that_does_not_fit_is_named(change, message):
    with pytest.raises(UserError, match=message):
        Config.from_dict({**MOONS.to_dict(), **change})


@pytest.mark.parametrize("name", ["name", "summary", "source", "target", "model"])
def test_an_entry_that_must_be_there_is_named(name):
    data = MOONS.to_dict()
    del data[name]
    with pytest.raises(UserError, match=rf"(^configuration: '{name}' is missing, got |^not a config.*{name})"):
        Config.from_dict(data)


def test_a_kind_is_looked_up_among_those_of_its_side():
    assert pick_component("--source", "source", "noisy") is NoisyConfig
    assert pick_component("--target", "target", "mnist") is MnistConfig
    with pytest.raises(UserError, match=r"^unknown --model: got 'mnist', expected one of practical-unet, .*, mlp$"):
        pick_component("--model", "model", "mnist")


def test_a_configuration_that_does_not_fit_is_named_with_its_file(tmp_path, capsys):
    told = {"config": {**PIPELINES["moons"].to_dict(), "colour": "red"}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert launch.main(["--pipeline", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "config.json") in error and "colour" in error


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"config": 3}', "null", "\xff", "[" * 100_000, None])
def test_a_file_without_a_configuration_is_named(tmp_path: Path, text):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=f"^{path}: ") as told:
        read_config(path)
    assert "\n" not in str(told.value)
