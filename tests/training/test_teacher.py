"""A teacher's pairs, and the student that is trained on them: pipelines/training/teacher.py."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import pytest
import torch

from flowferry import Pipeline
from flowferry.configs.recipe import SolverConfig, TeacherConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_samplers
from flowferry.datasets.made_pairs import MadePairs, from_stored, to_stored
from flowferry.datasets.rng import content_rows, derive_seed
from flowferry.models import build_model
from flowferry.pipelines import inspect_pairs
from flowferry.pipelines.train import Trainer
from flowferry.pipelines.training import teacher as teachers
from flowferry.pipelines.training.batches import draw_pairs
from flowferry.pipelines.training.step import TrainStep
from flowferry.pipelines.training.teacher import Teacher, TeacherPairs, with_teacher_hash
from sample_data import CPU
from tiny_runs import assert_same_tensors, config_of, trained

COUNT = 40


@pytest.fixture
def saved(tiny, tmp_path):
    """saved(name, folder): a tiny named pipeline whose network answers at random, in tmp_path/folder."""

    def save(name: str, folder: str = "teacher", *, seed: int = 0, **changes) -> Path:
        config = tiny(name, **changes)
        torch.manual_seed(seed)
        model = build_model(config)
        for parameter in model.parameters():  # some layers open with zeros
            torch.nn.init.normal_(parameter, std=0.2)
        Pipeline(config, model).save_pretrained(tmp_path / folder)
        return tmp_path / folder

    return save


@pytest.fixture
def student(tiny):
    """student(teacher, name): a tiny student of the weights in a folder, as a run makes its configuration."""

    def make(teacher: Path, name: str = "fashion2mnist-fast", **changes) -> Config:
        return with_teacher_hash(tiny(name, teacher=TeacherConfig(pipeline=str(teacher), pairs=COUNT), **changes))

    return make


def source_of(config: Config, split: str = "train") -> Sampler:
    return build_samplers(config, data_root=Path(), split=split, device=CPU)[0]


def pairs_of(config: Config, folder: Path, count: int = COUNT) -> TeacherPairs:
    return Teacher(config, folder / "run", CPU).pairs(source_of(config), count, "train")


def made(config: Config, folder: Path, count: int = COUNT) -> MadePairs:
    pairs = pairs_of(config, folder, count)
    pairs.make()
    return pairs.load()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.safetensors")}


# --- what the pairs are ------------------------------------------------------------------------------


def test_a_batch_is_source_samples_with_noise_and_what_the_teacher_makes_of_them(saved, student, tmp_path):
    config = student(saved("fashion2mnist"))
    assert config.train.source_noise == 0.3
    pairs = draw_pairs(config, *made(config, tmp_path).sides, COUNT, seed=config.seed, step=0)
    teacher = Pipeline.from_pretrained(tmp_path / "teacher", precision="auto").using(source_noise=0.0)
    assert (teacher.translate(pairs.x0) - pairs.x1).abs().max() < 1 / 127, "it is kept in 256 levels"
    assert (teacher.translate(pairs.x0.roll(1, 0)) - pairs.x1).abs().max() > 0.1
    assert pairs.condition.label is None


def test_the_source_is_the_pipelines_own_plus_the_noise_of_its_training(saved, student, tmp_path):
    config = student(saved("fashion2mnist"))
    source, target = made(config, tmp_path, 64).sides
    (images, _) = source_of(config).draw(64, seed=0, step=0)
    plain = source.draw(64, seed=derive_seed(config.seed, "target"), step=0).samples
    of_plain, of_images = (sorted(x.flatten(1).sum(1).tolist()) for x in (plain, images))
    assert of_plain == pytest.approx(of_images, abs=1e-3)
    noise = draw_pairs(config, source, target, 64, seed=config.seed, step=0).x0 - plain
    assert noise.std().item() == pytest.approx(0.3, rel=0.02) and len(noise.flatten(1).unique(dim=0)) == 64


def test_a_network_that_sees_the_source_sees_it_without_noise(saved, student, tiny, tmp_path):
    seeing = {"model": replace(tiny("fashion2mnist").model, sees_source=True)}
    config = student(saved("fashion2mnist", **seeing), **seeing)
    pairs = draw_pairs(config, *made(config, tmp_path).sides, COUNT, seed=config.seed, step=0)
    noise = pairs.x0 - pairs.condition.image
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    teacher = Pipeline.from_pretrained(tmp_path / "teacher", precision="auto")
    rows = content_rows(pairs.condition.image)
    assert (teacher.translate(pairs.condition.image, rows=rows, seed=config.seed) - pairs.x1).abs().max() < 1 / 127


@pytest.mark.parametrize(
    ("teacher", "name"),
    [
        ("fashion2mnist", "fashion2mnist-fast"),
        ("noise2mnist-cfg", "noise2mnist-cfg-fast"),
        ("denoise-mnist", "fashion2mnist-fast"),
    ],
)
def test_sources_are_kept_to_half_a_level_or_in_half_precision(teacher, name, saved, student, tiny, tmp_path):
    """Images with noise on them leave [-1, 1]."""
    config = student(saved(teacher), name, source=tiny(teacher).source)
    source = source_of(config)
    drawn = source.draw(COUNT, seed=1, step=0).samples
    kept = from_stored(to_stored(drawn, are_images=Teacher(config, tmp_path, CPU).are_images))
    torch.testing.assert_close(kept, drawn, rtol=1e-3, atol=0.51 / 127.5)


def test_each_epoch_reads_every_pair_once_in_a_new_order(saved, student, tmp_path):
    source, target = made(student(saved("fashion2mnist")), tmp_path).sides
    epochs = [[side.draw(COUNT, seed=1, step=step).samples.flatten(1) for step in (0, 1)] for side in (source, target)]
    orders = [torch.cdist(first, second).argmin(dim=1) for first, second in epochs]
    assert torch.equal(*orders) and sorted(orders[0].tolist()) == list(range(COUNT)) != orders[0].tolist()
    assert torch.equal(epochs[0][0], epochs[0][1][orders[0]])
    parts = torch.cat([source.draw(COUNT // 4, seed=1, step=step).samples for step in range(4)])
    assert torch.equal(parts.flatten(1), epochs[0][0])


def test_guidance_and_labels_are_the_teachers_and_some_ask_for_none(saved, student, tmp_path):
    config = student(saved("noise2mnist-cfg"), "noise2mnist-cfg-fast")
    config = replace(config, train=replace(config.train, label_dropout=0.3))
    pairs = made(config, tmp_path, 200)
    assert set(pairs.labels.tolist()) == set(range(11)), "10 asks for none"
    assert (pairs.labels == 10).double().mean().item() == pytest.approx(0.3, abs=0.1)
    x0, x1 = (side.draw(200, seed=0, step=0) for side in pairs.sides)
    teacher = Pipeline.from_pretrained(tmp_path / "teacher", precision="auto")
    assert teacher.config.solver.guidance == 1.5
    guided, plain = (teacher.translate(x0.samples, x0.labels, guidance=w) for w in (None, 1.0))
    assert (guided - x1.samples).abs().max() < 0.02 < (plain - x1.samples).abs().max()
    assert x0.samples.std().item() == pytest.approx(1, rel=0.02), "noise, not clipped to the range of images"


def test_a_batch_takes_noise_and_dropped_labels_from_its_pairs(saved, student, tmp_path):
    config = student(saved("noise2mnist-cfg"), "noise2mnist-cfg-fast")
    config = replace(config, train=replace(config.train, label_dropout=0.5, batch_size=8))
    sides = made(config, tmp_path).sides
    pairs = draw_pairs(config, *sides, 8, seed=config.seed, step=0)
    seen = sides[1].draw(COUNT, seed=0, step=0)
    place = torch.cdist(pairs.x1.flatten(1), seen.samples.flatten(1)).argmin(dim=1)
    assert torch.equal(pairs.condition.label, seen.labels[place])


# --- how they are kept -------------------------------------------------------------------------------


def test_pairs_that_are_there_are_kept_and_missing_ones_come_out_the_same(saved, student, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "BLOCK", 16)
    config = student(saved("fashion2mnist"))
    pairs = pairs_of(config, tmp_path)
    pairs.make()
    before = contents(tmp_path / "pairs")
    assert len(before) == 3, "16 + 16 + 8 pairs, the last file whole"
    pairs.files[1].unlink()
    ages = {file: file.stat().st_mtime_ns for file in (pairs.files[0], pairs.files[2])}
    pairs_of(config, tmp_path).make()
    assert contents(tmp_path / "pairs") == before
    assert {file: file.stat().st_mtime_ns for file in ages} == ages
    assert len(pairs.load().source) == COUNT


def test_files_are_read_one_after_the_other_into_what_holds_them_all(saved, student, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "BLOCK", 6)
    pairs = pairs_of(student(saved("noise2mnist-cfg"), "noise2mnist-cfg-fast"), tmp_path)
    pairs.make()
    read, of_earlier_files, most = teachers.read, WeakSet(), []

    def watched(*arguments):
        most.append(len(of_earlier_files))
        tensors = read(*arguments)
        of_earlier_files.update(tensors.values())
        return tensors

    monkeypatch.setattr(teachers, "read", watched)
    loaded = pairs.load()
    assert len(most) == 7 and max(most) <= 3, "the source, the target and the labels of the last file"
    parts = [read(file, CPU) for file in pairs.files]
    for name in ("source", "target", "labels"):
        assert torch.equal(getattr(loaded, name), torch.cat([part[name] for part in parts])[:COUNT])


def test_several_processes_make_the_pairs_of_one(saved, student, tmp_path, monkeypatch):
    monkeypatch.setattr(teachers, "BLOCK", 8)
    config = student(saved("fashion2mnist"))
    one, shares = pairs_of(config, tmp_path / "one"), [pairs_of(config, tmp_path / "two") for _ in range(2)]
    one.make()
    shares[1].make(rank=1, of=2)
    assert len(contents(tmp_path / "two" / "pairs")) == 2
    shares[0].make(rank=0, of=2)
    shares[0].make()
    assert contents(tmp_path / "one" / "pairs") == contents(tmp_path / "two" / "pairs")


def test_whatever_decides_the_pairs_names_their_folder(saved, student, tmp_path):
    first = saved("fashion2mnist")
    config = student(first)

    def folder(config: Config) -> Path:
        return pairs_of(config, tmp_path).files[0].parent

    def taught(**changes) -> Config:
        return replace(config, teacher=replace(config.teacher, **changes))

    others = [
        student(saved("fashion2mnist", "other", seed=1)),
        taught(steps=3),
        taught(solver="euler"),
        replace(config, seed=1),
        replace(config, train=replace(config.train, source_noise=0.2)),
        replace(config, source=replace(config.source, count=128)),
    ]
    assert len({folder(config), *map(folder, others)}) == 1 + len(others)
    same = [taught(pairs=COUNT), replace(config, train=replace(config.train, lr=1e-4, minutes=3.0))]
    assert {folder(one) for one in same} == {folder(config)}


def test_a_broken_file_is_named(saved, student, tmp_path):
    pairs = pairs_of(student(saved("fashion2mnist")), tmp_path)
    pairs.make()
    pairs.files[0].write_bytes(pairs.files[0].read_bytes()[:-100])
    with pytest.raises(UserError, match=f"^{pairs.files[0]}: not a whole file of a teacher's pairs .*; delete it"):
        pairs.load()


# --- the student -------------------------------------------------------------------------------------


def test_the_student_starts_from_the_teachers_weights_where_it_has_the_same_network(saved, student, tmp_path, caplog):
    caplog.set_level(logging.INFO, "flowferry")
    config = student(saved("fashion2mnist"))
    weights = Pipeline.from_pretrained(tmp_path / "teacher").model.state_dict()
    started = Trainer(config, tmp_path / "same", data_root=Path()).train_step
    for model in (started.raw_model, started.eval_pipeline.model):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert "the teacher: " in caplog.text and "random weights" not in caplog.text
    wider = replace(config, model=replace(config.model, widths=(8, 24)))
    assert isinstance(Trainer(wider, tmp_path / "wider", data_root=Path()).train_step, TrainStep)
    assert "another one, and starts from random weights" in caplog.text


def test_the_student_of_a_straight_teacher_has_nothing_to_learn(saved, student, tmp_path):
    """One step of a velocity that is constant is exact, so that the loss is that of rounding to 256 levels."""
    folder = saved("fashion2mnist")
    teacher = Pipeline.from_pretrained(folder)
    torch.nn.init.zeros_(teacher.model.out.weight)
    torch.nn.init.constant_(teacher.model.out.bias, 0.1)
    teacher.save_pretrained(folder)
    trainer = Trainer(student(folder), tmp_path / "run", data_root=Path())
    x0, x1, *_ = trainer.train_step.global_batch(0)
    inside = x0.abs() < 0.8  # the rest is clipped
    assert (x0 + 0.1 - x1)[inside].abs().max() < 0.01


def test_a_student_is_trained_resumed_and_refuses_another_teacher(saved, student, tiny, tmp_path):
    folder = saved("fashion2mnist")

    def run(steps: int, teacher: Path = folder) -> Config:
        config = config_of(tiny, steps, "fashion2mnist-fast", epochs=4, schedule="constant", warmup_steps=0)
        return replace(config, teacher=TeacherConfig(pipeline=str(teacher), pairs=COUNT))

    trained(run(4), tmp_path / "whole")
    for steps in (2, 4):
        trained(run(steps), tmp_path / "parts")
    assert_same_tensors(*(tmp_path / name / "model" / "model.safetensors" for name in ("whole", "parts")))
    kept = Pipeline.from_pretrained(tmp_path / "whole")
    assert kept.using(steps=1).nfe == 1 < kept.nfe == 2, "tiny runs take two steps"
    with pytest.raises(UserError, match=r"holds another run: teacher\.pipeline .*; teacher\.sha256 "):
        trained(run(6, saved("fashion2mnist", "other", seed=1)), tmp_path / "whole")


def test_trying_a_step_and_inspecting_pairs_keep_none(saved, student, tmp_path, capsys):
    config = student(saved("fashion2mnist"))
    assert Trainer(config, tmp_path / "run", data_root=Path(), dry_run=True).dry_run() == 0
    assert inspect_pairs.run(config, tmp_path / "run", data_root=Path()) == 0
    assert not (tmp_path / "pairs").exists()
    told = capsys.readouterr().out
    assert "coupling                          teacher, 64 pairs at once" in told
    moved, by_chance = (float(x) for x in re.search(r"‖², by element +([\d.]+); independent: ([\d.]+)", told).groups())
    assert moved < 0.9 * by_chance, "a pair is a garment and what became of it"


def test_one_step_leads_one_way(saved, student):
    pipeline = Pipeline(student(saved("fashion2mnist")))
    assert pipeline.config.solver.num_steps == 1 and not pipeline.is_invertible
    with pytest.raises(
        UserError, match=r"^fashion2mnist-fast runs from source to target only, because it takes one ste"
    ):
        pipeline.invert(torch.zeros(1, 1, 28, 28))
    assert pipeline.using(steps=8).invert(torch.zeros(1, 1, 28, 28)).shape == (1, 1, 28, 28)


# --- what does not go together -----------------------------------------------------------------------


def test_a_teacher_and_its_coupling_need_each_other(tiny):
    with pytest.raises(UserError, match=r"^coupling ot: got the teacher x, expected the coupling teacher$"):
        tiny("fashion2mnist", teacher=TeacherConfig(pipeline="x"))
    with pytest.raises(UserError, match=r"^coupling teacher: got no teacher, expected teacher\.pipeline$"):
        tiny("fashion2mnist", coupling="teacher")


def test_a_teacher_of_other_samples_or_classes_or_without_weights_is_refused(saved, student, tmp_path):
    config = student(saved("noise2mnist-cfg"))
    with pytest.raises(UserError, match=r"^--teacher\.pipeline: got .* with num_classes 10, expected 0$"):
        Teacher(config, tmp_path, CPU)
    with pytest.raises(
        UserError, match=r"^--teacher\.pipeline: got .* with shape \(1, 28, 28\), expected \(3, 32, 32\)"
    ):
        Teacher(replace(config, shape=(3, 32, 32)), tmp_path, CPU)
    chance = student(saved("ddpm-mnist", "ddpm"), "ddpm-mnist", coupling="teacher", solver=SolverConfig(num_steps=1))
    with pytest.raises(UserError, match=r"^--teacher\.solver: got ancestral, whose results differ by chance, expected"):
        Teacher(chance, tmp_path, CPU)
    with pytest.raises(UserError, match=r"^no weights in"):
        student(tmp_path)
