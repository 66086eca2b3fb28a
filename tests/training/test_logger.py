"""What a run logs: one line for each step, whatever was killed in the middle of writing it."""

import json

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flowferry.pipelines.training.logger import (
    FLUSH_EVERY,
    RunLogger,
    last_evaluated,
    open_logger,
    progress_bar,
    read_metrics,
    show_progress,
)
from tiny_runs import config_of, losses, metrics, points, trained


@pytest.fixture
def loggers(tmp_path):
    """loggers(step): open the log of the same folder. All of them are closed in the end."""
    opened = []

    def open_at(step: int, *, unfinished: bool = False) -> RunLogger:
        opened.append(open_logger(tmp_path, {"config": {"seed": 3}}, step=step, unfinished=unfinished))
        return opened[-1]

    yield open_at
    for logger in opened:
        logger.abandon()


def test_what_was_logged_past_the_checkpoint_is_taken_back(tiny, tmp_path):
    """A kill leaves lines that no checkpoint covers; the next run must not log those steps twice."""
    trained(config_of(tiny, 2), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "train/loss": 9.0}\n{"step": 4, "tra')
    trained(config_of(tiny, 4), tmp_path)
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4]
    assert 9.0 not in losses(tmp_path)


def test_a_line_that_is_no_entry_ends_the_metrics(tmp_path):
    """Whatever comes after it was written by a run that did not know of it."""
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    whole = [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 0.25}]
    for broken in ('{"step": 3, "tra', "[3]", "null", "{}", '{"step": "3"}', "\0\0", "[" * 100_000):
        lines = [*map(json.dumps, whole), broken, json.dumps({"step": 4})]
        path.write_text("\n".join(lines) + "\n")
        assert read_metrics(path) == whole, broken[:20]
    path.write_bytes(json.dumps(whole[0]).encode() + b"\n\xff\xfe\n")
    assert read_metrics(path) == whole[:1]


def test_all_that_is_logged_of_a_step_is_one_line(loggers, tmp_path):
    logger = loggers(0)
    logger.log_metrics(1, {"train/loss": 2})
    logger.log_metrics(2, {"train/loss": 1})
    logger.log_metrics(2, {"eval/loss": 0.5})
    expected = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0, "eval/loss": 0.5}]
    assert logger.rows() == expected and metrics(tmp_path) == []
    logger.close()
    assert logger.rows() == expected == metrics(tmp_path)
    assert points(tmp_path, "train/loss") == [(1, 2.0), (2, 1.0)] and points(tmp_path, "eval/loss") == [(2, 0.5)]
    assert json.loads((tmp_path / "config.json").read_text()) == {"config": {"seed": 3}}


def test_the_line_of_an_unfinished_step_is_opened_again(loggers, tmp_path):
    """Of a step that was saved before it was measured. TensorBoard has each of its values once."""
    logger = loggers(0)
    for step in (1, 2, 3):
        logger.log_metrics(step, {"train/loss": step})
    logger.close()
    logger = loggers(2, unfinished=True)
    assert logger.rows() == [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 2.0}]
    logger.log_metrics(2, {"eval/loss": 9.0})
    assert metrics(tmp_path)[-1] == {"step": 2, "train/loss": 2.0}, "the old line stays until the new one is whole"
    logger.flush()
    logger.log_metrics(3, {"train/loss": 30.0})
    logger.close()
    assert metrics(tmp_path) == [
        {"step": 1, "train/loss": 1.0},
        {"step": 2, "train/loss": 2.0, "eval/loss": 9.0},
        {"step": 3, "train/loss": 30.0},
    ]
    logger = loggers(3)
    logger.log_metrics(4, {"train/loss": 4.0})
    logger.close()
    assert [row["step"] for row in metrics(tmp_path)] == [1, 2, 3, 4]
    assert points(tmp_path, "train/loss") == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 4.0)]
    assert points(tmp_path, "eval/loss") == [(2, 9.0)]


def test_a_kill_loses_no_more_than_the_last_steps(loggers, tmp_path):
    logger = loggers(0)
    for step in range(1, 2 * FLUSH_EVERY + 10):
        logger.log_metrics(step, {"train/loss": 1.0})
        assert len(metrics(tmp_path)) >= step - FLUSH_EVERY
    assert [row["step"] for row in logger.rows()] == list(range(1, 2 * FLUSH_EVERY + 10))


@pytest.mark.parametrize(
    ("evaluated", "expected"), [([], 0), ([4], 4), ([4, 8], 8)], ids=["nowhere", "once", "more than once"]
)
def test_the_last_evaluation_is_found_in_the_metrics(tmp_path, evaluated, expected):
    path = tmp_path / "metrics.jsonl"
    assert last_evaluated(path) == 0
    rows = [{"step": n, "train/loss": 1.0} | ({"eval/loss": 1.0} if n in evaluated else {}) for n in range(1, 10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert last_evaluated(path) == expected


def test_a_picture_is_kept_by_step_and_as_the_newest(loggers, tmp_path):
    logger = loggers(0)
    for step, color in ((4, "red"), (8, "blue")):
        logger.log_picture(step, "samples", Image.new("RGB", (4, 3), color))
    logger.close()
    colors = {path.name: Image.open(path).getpixel((0, 0)) for path in (tmp_path / "samples").iterdir()}
    red, blue = (255, 0, 0), (0, 0, 255)
    assert colors == {"samples-0000004.png": red, "samples-0000008.png": blue, "samples.png": blue}
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [image.step for image in events.Images("samples/samples")] == [4, 8]


def test_an_abandoned_log_keeps_what_it_can_and_says_nothing_of_a_full_disk(loggers, tmp_path, monkeypatch):
    logger = loggers(0)
    logger.log_metrics(1, {"train/loss": 1.0})
    logger.abandon()
    logger.abandon()
    assert [row["step"] for row in metrics(tmp_path)] == [1]

    def full() -> None:
        raise OSError(28, "No space left on device")

    logger = loggers(1)
    logger.log_metrics(2, {"train/loss": 1.0})
    monkeypatch.setattr(logger._writer, "flush", full)
    logger.abandon()
    assert logger._metrics.closed and [row["step"] for row in metrics(tmp_path)] == [1]


def test_the_bar_moves_by_all_steps_that_were_read_towards_the_expected_end(capsys):
    bar = progress_bar(1000, 4, shown=True, name="moons")
    show_progress(bar, 20, 80, {"train/loss": 0.125, "perf/images_per_second": 1234.5})
    bar.close()
    assert (bar.n, bar.total) == (20, 80)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "moons" in last and "20/80" in last and "loss 0.1250, 1234 images/s" in last
    hidden = progress_bar(1000, 0, shown=False, name="moons")
    show_progress(hidden, 20, 80, {"train/loss": 0.125, "perf/images_per_second": 1234.5})
    hidden.close()
    assert capsys.readouterr().err == ""


def test_pictures_of_steps_that_no_checkpoint_covers_are_removed(loggers, tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    kept = ["samples.png", "samples-0000002.png", "path-0000003.png", "my-holiday.png", "my-archive.png"]
    for name in (*kept, "samples-0000004.png", "path-1000000.png"):
        Image.new("L", (1, 1)).save(samples / name)
    loggers(step=3)
    assert sorted(path.name for path in samples.iterdir()) == sorted(kept)
