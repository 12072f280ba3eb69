import pytest

from nasmvt.data.values import flag, identifier, number, whole


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (" 3 ", 3),
        ("-3", -3),
        ("007", 7),
        (3.5, None),
        ("3.5", None),
        ("", None),
        (True, None),
        (None, None),
        ([3], None),
        ("three", None),
        ("\N{FULLWIDTH DIGIT NINE}", None),
        ("9" * 30, None),
    ],
)
def test_whole_numbers(value, expected):
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(3, 3), ("3", 3), (3.0, 3), ("007", "007"), ("a1", "a1"), ("", None), (None, None)]
)
def test_ids_keep_leading_zeros(value, expected):
    assert identifier(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, False),
        (1, True),
        (False, False),
        (1.0, True),
        ("0", False),
        ("1", True),
        ("false", False),
        ("True", True),
        (None, False),
        ("", False),
        (2, None),
        ("yes", None),
        ([], None),
        (0.5, None),
    ],
)
def test_flags(value, expected):
    assert flag(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        ("3.5", 3.5),
        (True, None),
        ("NaN", None),
        (float("inf"), None),
        ("x", None),
        (None, None),
        (10**400, None),
        ([1], None),
    ],
)
def test_finite_numbers(value, expected):
    assert number(value) == expected
