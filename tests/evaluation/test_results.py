"""What is said in words, and the table."""

from typing import Any

from flowferry.pipelines.evaluation.results import notes, table

COPIED = {"psnr of the source": 20.0, "ssim of the source": 0.8, "l1 of the source": 10.0}
BETTER = {"psnr": 23.0, "ssim": 0.9, "l1": 8.0}


def result(translation: dict[str, float], **more: Any) -> dict[str, Any]:
    about = {"pipeline": "it", "count": 9, "sampling": "euler", "timing": {"milliseconds an image": 1.0}}
    return about | {"translation": translation, "shuffled": translation} | more


def test_results_that_are_nearer_are_passed_over_in_silence() -> None:
    assert notes(result(COPIED | BETTER)) == []
    assert notes(result({"distance": 0.1})) == []


def test_results_that_nearly_copy_are_told() -> None:
    """An error that is 5 % less is 0.22 dB."""
    nearly = {"psnr": 20.2, "ssim": 0.805, "l1": 9.6}
    (told,) = notes(result(COPIED | nearly))
    expected = "psnr 20.2, of the source 20; ssim 0.805, of the source 0.8; l1 9.6, of the source 10"
    assert told == f"NOTE: the results are no nearer to their truth than the source is: {expected}"
    (told,) = notes(result(COPIED | BETTER | {"psnr": 19.0}))
    assert told.endswith("than the source is: psnr 19, of the source 20")


def test_results_that_are_no_more_like_the_target_are_told() -> None:
    figures = {"target": {"frechet": 2.0}, "untranslated": {"frechet": 2.05}}
    (told,) = notes(result({"partner found": 0.25, "partner found of the source": 0.2}, **figures))
    assert told.endswith("no more like the target's images than the source is: frechet 2, of the source 2.05")
    (told,) = notes(result({"partner found": 0.2, "partner found of the source": 0.2}))
    assert told.endswith("lead to their partners no more often than the source does: 20.0%, of the source 20.0%")


def test_the_figures_of_the_source_stand_beside_those_of_the_results() -> None:
    told = table(
        result({"distance": 0.5} | BETTER | COPIED, notes=["NOTE: it"], among={"source found": 64})
    ).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in told if line}
    assert rows["translation"] == ["results", "shuffled", "source"]
    assert rows["psnr"] == ["23", "23", "20"] and rows["l1"] == ["8", "8", "10"]
    assert rows["distance"] == ["0.5", "0.5"] and "NOTE: it" in told
    assert "source found: the nearest of 64, by chance 1.56%" in told
