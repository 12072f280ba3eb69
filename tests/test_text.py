import pytest

from nasmvt.errors import UserError
from nasmvt.text import read_lines, read_text

TEXT = "Straße\n\nCafé 猫\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_known_by_its_mark(tmp_path, encoding):
    path = tmp_path / "classes.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    assert read_lines(path) == ["Straße", "Café 猫"]


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_either_end_may_come_first(tmp_path, encoding):
    path = tmp_path / "classes.txt"
    path.write_bytes(("\ufeff" + TEXT).encode(encoding))
    assert read_text(path) == TEXT


def test_windows_text_is_read_with_a_warning(tmp_path, caplog):
    path = tmp_path / "classes.txt"
    path.write_bytes("Bär\n".encode("cp1252"))
    assert read_text(path) == "Bär\n"
    assert "classes.txt is not UTF-8 and was read as Windows-1252" in caplog.text


@pytest.mark.parametrize("content", [b"\xff\xfea", b"a\0\xe4", b"\x81\x8d"])
def test_what_is_no_text_is_refused_by_name(tmp_path, content):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"classes\.txt is not text in .*: store it as UTF-8"):
        read_text(tmp_path / "classes.txt")
    with pytest.raises(UserError, match=r"absent\.txt can't be read \(No such file"):
        read_text(tmp_path / "absent.txt")
