"""YAML as people write it: what a scalar is, what is refused, what is written can be read back."""

import math

import pytest

from nasmvt.errors import UserError
from nasmvt.yaml_text import dump_yaml, load_yaml

SCALARS = {
    "1e-3": 0.001, "5E4": 50000.0, "1e1": 10.0, "64.0": 64.0, "5.": 5.0, ".5": 0.5, "1_000.5": 1000.5,
    "-.inf": -math.inf,
    "1_000": 1000, "-3": -3, "+3": 3, "0": 0, "0x1F": 31, "0o17": 15, "2017": 2017,
    "'64'": "64", "001": "001", "017": "017", "1:30": "1:30", "1_": "1_", "1__0": "1__0", "1.2.3": "1.2.3",
    "no": "no", "NO": "NO", "yes": "yes", "on": "on", "off": "off", "y": "y", "nan": "nan", "=": "=",
    "2024-01-01": "2024-01-01", "2024-13-45": "2024-13-45",
    "true": True, "False": False, "": None, "~": None, "null": None, "Null": None, "none": "none",
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS.items())
def test_a_plain_word_or_number_is_what_it_looks_like(text, value):
    got = load_yaml(f"key: {text}", "f")["key"]
    assert got == value
    assert type(got) is type(value)


TEXTS = ["no", "Yes", "off", "null", "~", "", "true", "1e3", "5e-4", "001", "1_000", "2017", "0o17", "0x1f", ".5", "."]
TEXTS += ["2024-01-01", "1:30", "<<", "=", "- x", "a: b", "#", "'", "d\u00e9j\u00e0", "two\nlines", "trailing ", ".inf"]


@pytest.mark.parametrize("value", [*TEXTS, 1, -1.5, 1e-5, 1e22, True, None, [1, [2.0]], {"no": 1, "1e3": {"b": []}}])
def test_what_is_written_is_read_back(value):
    got = load_yaml(dump_yaml({"key": [value]}), "f")["key"][0]
    assert got == value
    assert type(got) is type(value)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3", "f has 'a' in line 1 and in line 3: rename or remove one"),
        ("a: {b: 1, 'b': 2}", "f has 'b' in line 1 and in line 1"),
        ("<<: {a: 1}\n<<: {b: 1}", "f has '<<' in line 1 and in line 2"),
        ("? [a]\n: 1", "f has a key in line 1 that is no single word"),
        ("a: [", "f is not valid YAML"),
        ("a: b: c", 'in "f", line 1, column 5'),
        ("a: 1\n---\nb: 2", "f is not valid YAML (expected a single document"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!timestamp 2024-01-01", "could not determine a constructor"),
        ("a: " + "9" * 5000, "f is not valid YAML"),
        ("a: \0", "f is not valid YAML"),
        ("[" * 5000, "f nests values too deeply"),
        ("a: &a [*a]", "f nests values too deeply, or in themselves"),
        (LAUGHS, "f repeats parts by aliases 1,000,000 times and more"),
        (" " * 1_000_001, "f must have 1,000,000 characters at most, but has 1,000,001"),
        ("a: 1\nb: ${NASMVT_ABSENT}", "variable NASMVT_ABSENT in line 2, which is not set: set it"),
    ],
)
def test_it_is_refused_by_file_and_place(text, words):
    with pytest.raises(UserError) as refused:
        load_yaml(text, "f")
    assert words in str(refused.value)


def test_anchors_and_merged_keys_serve(monkeypatch):
    text = "base: &base {a: 1, b: 2}\nfirst: {<<: *base, b: 3}\nsecond: *base\n"
    assert load_yaml(text, "f") == {"base": {"a": 1, "b": 2}, "first": {"a": 1, "b": 3}, "second": {"a": 1, "b": 2}}
    nested = "- &b {a: 1}\n- &m {<<: *b, a: 2}\n- x: {<<: *m, a: 3}\n"
    assert load_yaml(nested, "f") == [{"a": 1}, {"a": 2}, {"x": {"a": 3}}]
    monkeypatch.setenv("NASMVT_PLACE", "/data: [x")
    assert load_yaml("a: ${NASMVT_PLACE}/b\nc: ${NASMVT_ABSENT:-d}", "f") == {"a": "/data: [x/b", "c": "d"}
