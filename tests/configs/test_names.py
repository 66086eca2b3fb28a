"""Names: when two are the same, in which order they come, and how they are shown: configs/names.py."""

from random import Random
from unicodedata import normalize

import pytest

from flowferry.configs.names import natural_order, numbered, one_line, same_form, with_code_points


def test_numbers_in_names_are_ordered_by_their_value() -> None:
    assert natural_order(map(str, range(120))) == tuple(map(str, range(120)))
    expected = ("1", "2", "10", "Cat", "a2b1", "a2b10", "a10", "cat", "cat 2", "cat 10", "dog")
    shuffled = list(expected)
    for seed in range(20):
        Random(seed).shuffle(shuffled)
        assert natural_order(shuffled) == expected


def test_the_order_is_total_and_alphabetical_without_numbers() -> None:
    names = ["b", "", "ab", "a", "é", "z", "a b", "01", "1", "001", "²", "٣", "a01", "a1"]
    found = natural_order(names)
    assert sorted(found) == sorted(names) and found == natural_order(reversed(names))
    letters = [name for name in names if name.isalpha()]
    assert natural_order(letters) == tuple(sorted(letters))


@pytest.mark.parametrize("name", ["größe", "Åse", "が", "plain"])
def test_two_encodings_of_a_name_are_the_same(name: str) -> None:
    assert same_form(normalize("NFD", name)) == same_form(normalize("NFC", name)) == name
    assert same_form("ﬁ") != same_form("fi"), "these are different letters"


def test_names_are_shown_in_one_line() -> None:
    assert with_code_points("a cat.2") == "a cat.2"
    assert with_code_points("größe") == r"größe = 'gr\xf6\xdfe'"
    assert with_code_points("cat ") == "cat  = 'cat '"
    assert one_line(["a", "b"]) == "a, b" and one_line([]) == ""
    assert one_line([str(n) for n in range(1000)]).endswith("38, 39, … (1000 in all)")
    assert numbered(["cat", "größe"]) == "0 cat, 1 größe"
