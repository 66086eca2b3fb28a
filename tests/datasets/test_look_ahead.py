"""Computing ahead in threads: datasets/look_ahead.py."""

import threading
from collections.abc import Iterator
from itertools import count, islice

import pytest

from flowferry.datasets.look_ahead import look_ahead
from tiny_runs import wait_for

EARLIER: set[threading.Thread] = set()
"""The threads of samplers that tests of other files have not dropped yet."""


def threads_of_ours() -> list[threading.Thread]:
    return [thread for thread in {*threading.enumerate()} - EARLIER if thread.name.startswith("look-ahead")]


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    EARLIER.clear()
    EARLIER.update(threading.enumerate())
    yield
    wait_for(lambda: not threads_of_ours(), "the threads' end", 10)


def test_results_come_in_order_whichever_is_ready_first() -> None:
    second_is_done = threading.Event()

    def square(number: int) -> int:
        if number == 0:
            assert second_is_done.wait(10), "the second was to be computed beside the first"
        if number == 1:
            second_is_done.set()
        return number**2

    assert list(look_ahead(square, range(20), threads=2, depth=4)) == [number**2 for number in range(20)]
    assert list(look_ahead(square, (), threads=2, depth=4)) == []


def test_no_more_than_the_depth_is_computed_ahead_of_an_endless_stream() -> None:
    taken = []
    ahead = look_ahead(str, (taken.append(n) or n for n in count()), threads=2, depth=5)
    assert taken == [] and threads_of_ours() == []
    assert next(ahead) == "0" and taken == [0, 1, 2, 3, 4, 5]
    assert list(islice(ahead, 3)) == ["1", "2", "3"] and taken == list(range(9))
    del ahead


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    ahead = look_ahead(lambda n: 1 / n, [2, 1, 0, 1], threads=2, depth=9)
    assert list(islice(ahead, 2)) == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_what_is_dropped_is_not_computed_and_nobody_waits_for_it() -> None:
    begun, may_end = [], threading.Event()

    def slow(number: int) -> int:
        begun.append(number)
        if number:
            may_end.wait(30)
        return number

    ahead = look_ahead(slow, range(100), threads=2, depth=50)
    assert next(ahead) == 0
    wait_for(lambda: len(begun) == 3, "both threads to be busy", 10)
    del ahead  # returns while both are busy
    may_end.set()
    wait_for(lambda: not threads_of_ours(), "the threads' end", 10)
    assert begun == [0, 1, 2]


def test_what_is_closed_waits_for_what_it_has_begun_where_asked() -> None:
    begun, ended, may_end = [], [], threading.Event()

    def slow(number: int) -> int:
        begun.append(number)
        if number:
            may_end.wait(30)
        ended.append(number)
        return number

    ahead = look_ahead(slow, range(100), threads=2, depth=50, wait=True)
    assert next(ahead) == 0
    wait_for(lambda: len(begun) == 3, "both threads to be busy", 10)
    threading.Timer(0.2, may_end.set).start()
    ahead.close()  # type: ignore[attr-defined]
    assert sorted(ended) == [0, 1, 2]
