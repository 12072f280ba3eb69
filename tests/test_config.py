"""From YAML to configuration: files in any encoding, numbers in any form, sentences that name file, place and value."""

import codecs

import pytest

from nasmvt.config import Config, parse, read_yaml
from nasmvt.errors import UserError


class Inner(Config):
    """A part."""

    size: int = 1
    """A whole number."""


class Outer(Config):
    """Every type that settings have."""

    steps: int = 1
    """A whole number."""
    lr: float = 0.1
    """A number."""
    name: str = "x"
    """A text."""
    names: tuple[str, ...] = ()
    """Texts."""
    sides: tuple[int, ...] | None = None
    """Whole numbers."""
    flag: bool = False
    """A truth value."""
    inner: Inner = Inner()
    """A part."""


def load(tmp_path, text: str | bytes) -> Outer:
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return parse(Outer, read_yaml(path), str(path))


@pytest.mark.parametrize("text", ["64", "64.0", "'64'", "6.4e1", "0x40", "64 # images", "064"])
def test_a_whole_number_in_any_form(tmp_path, text):
    assert load(tmp_path, f"steps: {text}").steps == 64


@pytest.mark.parametrize("text", ["5e-4", "5E-4", "0.0005", ".0005", "'5e-4'", "0.5e-3"])
def test_a_number_in_any_form(tmp_path, text):
    assert load(tmp_path, f"lr: {text}").lr == 0.0005


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("no", False), ("true", True), ("Off", False)]
)
def test_a_truth_value_in_any_form(tmp_path, text, value):
    assert load(tmp_path, f"flag: {text}").flag is value


def test_names_that_other_tools_take_for_something_else(tmp_path):
    assert load(tmp_path, "names: [no, yes, 001, 2024-01-01, 1:30, NO]").names == (
        *("no", "yes", "001", "2024-01-01", "1:30", "NO"),
    )


@pytest.mark.parametrize(
    "mark", [(b"", "utf-8"), (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (b"", "cp1252")]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_usual_encodings(tmp_path, mark, newline):
    content = f"name: d\u00e9j\u00e0{newline}steps: 3{newline}".encode(mark[1])
    read = load(tmp_path, mark[0] + content)
    assert (read.name, read.steps) == ("d\u00e9j\u00e0", 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 2.5", ["'steps'", "a.yaml", "2.5"]),
        ("steps: true", ["'steps'", "a.yaml", "a number, not true or false", "True"]),
        ("sides: [1, true]", ["'sides'", "a.yaml", "a number, not true or false"]),
        ("steps:", ["'steps'", "a.yaml", "None"]),
        ("steps: [1]", ["'steps'", "a.yaml", "[1]"]),
        ("name: 2017", ["'name'", "a.yaml", "write it in quotes: '2017'"]),
        ("name: true", ["'name'", "a.yaml", "write it in quotes: 'true'"]),
        ("names: [a, 1.10]", ["'names.1'", "a.yaml", "in quotes"]),
        ("inner: 3", ["'inner'", "a.yaml", "keys of its own", "3"]),
        ("inner:", ["'inner'", "a.yaml", "keys of its own", "nothing"]),
        ("inner: {siez: 3}", ["'inner.siez'", "a.yaml", "did you mean 'size'?"]),
        ("lr: .inf", ["'lr'", "a.yaml", "finite", "inf"]),
        ("lr: " + "x" * 9999, ["'lr'", "a.yaml", "xxx..."]),
        ("- 1", ["a.yaml", "mapping", "[1]"]),
        ("just words", ["a.yaml", "mapping", "'just words'"]),
    ],
)
def test_sentences_name_file_place_and_value(tmp_path, text, words):
    with pytest.raises(UserError) as refused:
        load(tmp_path, text)
    assert [word for word in words if word not in str(refused.value)] == [], refused.value
    assert len(str(refused.value)) < 400 + len(str(tmp_path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(UserError, match="can't be read"):
        read_yaml(tmp_path)
