"""How far a run is, and what is due there."""

import json
from dataclasses import replace

import pytest

from flowferry.configs.presets import PIPELINES
from flowferry.configs.recipe import TrainConfig
from flowferry.pipelines.training.progress import SHARE, Clock, Progress
from tiny_runs import config_of, metrics, trained

PLAN = TrainConfig(epochs=6, show_epochs=0, checkpoint_epochs=0, min_steps_apart=1)


def progress_of(steps_per_epoch: int = 4, **train: object) -> Progress:
    return Progress(replace(PLAN, **train), steps_per_epoch)


@pytest.mark.parametrize(("max_steps", "total"), [(None, 24), (7, 7), (24, 24), (100, 24)])
def test_the_total_is_all_epochs_or_the_steps_that_are_allowed(max_steps, total):
    assert progress_of(max_steps=max_steps).total == total


def test_the_fraction_is_that_of_the_steps_or_of_the_minutes_whichever_is_further():
    progress = progress_of(minutes=2.0)
    for step, seconds, fraction in ((0, 0, 0), (6, 0, 0.25), (6, 60, 0.5), (18, 60, 0.75), (1, 119, 119 / 120)):
        progress.step, progress.clock = step, Clock(seconds)
        assert progress.fraction == pytest.approx(fraction) and not progress.is_done
    for step, seconds in ((24, 0), (1, 120), (30, 0), (24, 500)):
        progress.step, progress.clock = step, Clock(seconds)
        assert progress.fraction == 1 and progress.is_done


def test_without_minutes_time_does_not_count():
    progress = progress_of()
    progress.clock = Clock(1e9, 1e9, 1e9)
    assert progress.fraction == 0 and not progress.is_done


def test_the_minutes_are_those_that_the_user_waits_and_half_of_them_are_for_training():
    progress = progress_of(minutes=10.0)
    progress.clock = Clock(seconds=480.0, paused=90.0, longest_pause=30.0)  # 600 with the pause at the end
    assert progress.is_done
    progress.clock = Clock(seconds=479.0, paused=90.0, longest_pause=30.0)
    assert progress.fraction == pytest.approx(479 / 480) and not progress.is_done
    for seconds, done in ((299.0, False), (300.0, True)):
        progress.clock = Clock(seconds, paused=1000.0, longest_pause=500.0)
        assert progress.is_done == done


@pytest.mark.parametrize("cost", [0.1, 3.0, 20.0, 60.0])
@pytest.mark.parametrize("step_seconds", [0.05, 1.0, 2.5])
def test_a_run_of_ten_minutes_takes_ten_minutes_with_its_evaluations(step_seconds, cost):
    """A run of 31 steps an epoch, each step and each evaluation as long as the others."""
    progress = progress_of(31, epochs=100_000, minutes=10.0, show_epochs=1, min_steps_apart=100)
    clock, evaluated = Clock(), []
    while not progress.is_done:
        progress.step += 1
        progress.clock = clock = clock._replace(seconds=clock.seconds + step_seconds)
        if progress.should_evaluate():
            evaluated.append(sum(clock[:2]))
            progress.evaluated_at = progress.step
            clock = Clock(clock.seconds, clock.paused + cost, cost)
    assert evaluated[0] <= SHARE * 600 + step_seconds
    assert evaluated[-1] + cost <= 600 + step_seconds and len(evaluated) >= 2
    assert clock.paused <= SHARE * 600 + 2 * cost
    assert evaluated[-1] + cost >= 600 - cost - step_seconds


def due(progress: Progress, what: str) -> list[int]:
    """The steps of a whole run at which something is due, and is done."""
    found = []
    for step in range(1, progress.total + 1):
        progress.step = step
        if getattr(progress, what)():
            found.append(step)
            progress.evaluated_at = step
            assert what != "should_evaluate" or not progress.should_evaluate(), "it was not done yet"
    return found


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({}, []),  # the end is saved by the loop
        ({"checkpoint_epochs": 1}, [4, 8, 12, 16, 20, 24]),
        ({"checkpoint_epochs": 4}, [16]),
        ({"checkpoint_steps": 5}, [5, 10, 15, 20]),
        ({"checkpoint_epochs": 2, "checkpoint_steps": 12}, [8, 12, 16, 24]),
    ],
)
def test_a_checkpoint_is_due_by_epoch_or_by_step(train, steps):
    assert due(progress_of(**train), "should_save") == steps


@pytest.mark.parametrize(
    ("train", "steps"),
    [
        ({}, [24]),
        ({"show_epochs": 1}, [4, 8, 12, 16, 20, 24]),
        ({"show_epochs": 4}, [4, 16, 24]),
        ({"show_epochs": 1, "max_steps": 7}, [4, 7]),
        ({"show_epochs": 9}, [4, 24]),
    ],
)
def test_an_evaluation_is_due_after_the_first_epoch_every_few_and_at_the_end(train, steps):
    assert due(progress_of(**train), "should_evaluate") == steps


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 4, 7, 30])
@pytest.mark.parametrize("every", [1, 2, 3, 10, 25])
def test_what_is_due_by_epoch_lies_steps_apart_where_epochs_are_short(steps_per_epoch, every):
    plan = {"epochs": 2000 // steps_per_epoch, "min_steps_apart": 30}
    for what, options in (("should_evaluate", {"show_epochs": every}), ("should_save", {"checkpoint_epochs": every})):
        progress = progress_of(steps_per_epoch, **plan, **options)
        often = progress_of(steps_per_epoch, **plan | {"min_steps_apart": 1}, **options)
        steps, all_steps = ([step for step in due(one, what) if step < one.total] for one in (progress, often))
        gaps = [b - a for a, b in zip([0, *steps], steps, strict=False)]
        assert min(gaps) >= 30
        assert max(gaps) < max(30, every * steps_per_epoch) + every * steps_per_epoch, "no further than it must be"
        if steps_per_epoch == 30:  # long enough: nothing changes
            assert steps == all_steps


def test_sixteen_pictures_are_saved_and_evaluated_once_not_at_each_of_their_steps():
    """One step an epoch, with the defaults of TrainConfig and the plan of the pipeline `folders`."""
    progress = Progress(PIPELINES["folders"].train, steps_per_epoch=1)
    assert progress.total == 100
    assert due(progress, "should_evaluate") == due(progress, "should_save") == [100]
    mnist = Progress(PIPELINES["denoise-mnist"].train, steps_per_epoch=235)  # the shortest epochs of published data
    assert due(mnist, "should_evaluate") == [235, 1175] and len(due(mnist, "should_save")) == 5


def test_nothing_is_due_before_the_first_step():
    progress = progress_of(show_epochs=1)
    assert not progress.should_evaluate()


def test_an_end_by_the_clock_is_evaluated():
    progress = progress_of(minutes=1.0)
    progress.step, progress.clock = 2, Clock(59.0)
    assert not progress.should_evaluate()
    progress.clock = Clock(60.0)
    assert progress.should_evaluate()


def test_the_caption_says_when():
    progress = progress_of(steps_per_epoch=8)
    progress.step = 12
    assert progress.when == "epoch 1.5, step 12"


def test_the_expected_total_follows_the_clock():
    progress = progress_of(minutes=2.0)
    for step, seconds, expected in ((6, 0, 24), (6, 30, 24), (6, 60, 12), (5, 90, 7), (5, 120, 5), (24, 0, 24)):
        progress.step, progress.clock = step, Clock(seconds)
        assert progress.expected_total == expected


def test_the_length_is_told_in_a_few_words():
    assert progress_of(steps_per_epoch=1500).describe() == "9,000 steps, 1,500 per epoch, batch 128"
    assert progress_of(minutes=2.5, batch_size=8).describe() == "24 steps or 2.5 min, 4 per epoch, batch 8"


def test_a_resumed_run_is_as_far_as_it_was_and_repeats_evaluations_past_its_checkpoint():
    before, after = progress_of(show_epochs=1), progress_of(show_epochs=1)
    before.step, before.clock, before.skipped = 8, Clock(12.5, 2.0, 1.5), 3
    after.load(json.loads(json.dumps(before.state())), evaluated_at=12)
    assert (after.step, after.clock, after.skipped, after.evaluated_at) == (8, before.clock, 3, 8)
    assert not after.should_evaluate()
    after.step = 12
    assert after.should_evaluate()
    after.load(before.state(), evaluated_at=4)
    assert after.evaluated_at == 4 and after.should_evaluate()
    after.load({"step": 8, "seconds": 12.5, "skipped": 3}, evaluated_at=8)  # by version 0.3
    assert after.clock == Clock(12.5, 0.0, 0.0)


def test_the_minutes_end_training_and_bring_the_schedule_with_them(tiny, tmp_path):
    config = config_of(tiny, None, minutes=1.5 / 60, epochs=100000, schedule="linear", lr_final=0.0)
    trainer = trained(config, tmp_path)
    clock = trainer.progress.clock
    assert clock.seconds + clock.paused >= 1.5 and 0.75 <= clock.seconds < 6
    rates = [row["train/lr"] for row in metrics(tmp_path)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == config.train.lr and rates[-1] < 0.5 * config.train.lr
