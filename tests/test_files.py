"""Files and folders appear whole, with the rights of others; what the system refuses becomes one sentence."""

import errno
import os
import signal
import stat
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nasmvt.errors import UserError, os_refusal
from nasmvt.files import atomic, held, new_folder, write_json, write_text


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_files_have_the_rights_that_the_umask_gives_whatever_their_writer_sets(tmp_path, umask):
    with atomic(tmp_path / "model.safetensors") as path:
        save_file({"x": torch.zeros(2)}, path)
    with atomic(tmp_path / "private") as path:
        path.write_text("")
        path.chmod(0o600)
    write_text(tmp_path / "text", "x")
    with new_folder(tmp_path / "folder") as folder:
        write_json(folder / "x.json", 1)
    files = ["model.safetensors", "private", "text", "folder/x.json"]
    assert [rights(tmp_path / name) for name in files] == [0o666 & ~umask] * 4
    assert rights(tmp_path / "folder") == 0o777 & ~umask


def test_an_error_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "text", "before")
    for writing in (atomic, new_folder):
        with pytest.raises(ZeroDivisionError):
            _break_off(writing, tmp_path / ("text" if writing is atomic else "folder"))
    assert (tmp_path / "text").read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["text"]


def _break_off(writing, path):
    with writing(path) as temporary:
        write_text(temporary if writing is atomic else temporary / "half", "half")
        raise ZeroDivisionError


def test_writers_of_one_file_do_not_meet(tmp_path):
    def write(text):
        for _ in range(50):
            write_text(tmp_path / "one", text * 1000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (tmp_path / "one").read_text() in [letter * 1000 for letter in "abc"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(UserError, match="exists"):
        _both_write(tmp_path / "m")
    assert (tmp_path / "m" / "x").read_text() == "theirs"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def _both_write(folder):
    with new_folder(folder) as mine:
        write_text(mine / "x", "mine")
        write_text(folder / "x", "theirs")


@pytest.mark.parametrize("stem", ["x" * 250, "漢" * 83, "🦀" * 62], ids=["ascii", "three bytes", "four bytes"])
def test_a_name_of_the_greatest_length_can_be_written(tmp_path, stem):
    write_text(tmp_path / f"{stem}.json", "1")


def test_what_a_killed_process_left_is_gone_after_the_next_writing(tmp_path):
    for writing, name in ((write_half, "one.txt"), (make_half, "folder")):
        child = os.fork()
        if not child:
            writing(tmp_path / name)
        os.waitpid(child, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder.part", ".one.part.txt"]
    (tmp_path / ".one.part.txt").chmod(0o600)  # as some writers set it
    write_text(tmp_path / "one.txt", "whole")
    with new_folder(tmp_path / "folder") as folder:
        write_text(folder / "x", "whole")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["folder", "folder/x", "one.txt"]
    assert rights(tmp_path / "one.txt") == rights(tmp_path / "folder/x")


def write_half(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        os._exit(0)


def make_half(folder):
    with new_folder(folder) as temporary:
        (temporary / "half").write_text("half")
        os._exit(0)


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with atomic(tmp_path / "one") as theirs:
        theirs.write_text("theirs")
        write_text(tmp_path / "one", "ours")
        assert (tmp_path / "one").read_text() == "ours"
        assert theirs.read_text() == "theirs"
    assert (tmp_path / "one").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("nasmvt.files._PATIENCE", 0.2)
    folder = tmp_path / "a" / "held"
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        with held(folder):
            os.write(tell, b"x")
            signal.pause()
    os.read(told, 1)
    with pytest.raises(UserError, match="one process at a time, but another one is at it"), held(folder):
        pass
    assert folder.is_dir()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with held(folder):
        (folder / "x").touch()
    with held(folder):
        (folder / "x").unlink()
    assert not folder.exists()


class _Remote(Exception):
    def __init__(self, cause):
        super().__init__("a long traceback")
        self.cause = cause


def _caught(function):
    try:
        function()
    except Exception as error:  # noqa: BLE001 (it is what is tested)
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b can't be used (No space left on device)"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError("encoder error -2 when writing image file"), "(encoder error -2"),
        (PermissionError(errno.EACCES, "Permission denied", b"caf\xe9"), "caf\udce9 can't be used"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "the disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "the disk is full"),
        (RuntimeError("can't start new thread"), "raise the limit (ulimit -u, a container's pids)"),
        (_caught(lambda: write_text(Path("/proc/x.json"), "")), "/proc/x.json can't be used ("),
        (_caught(lambda: torch.save({}, "/nowhere/at/all.pt")), "/nowhere/at can't be used"),
        (_caught(lambda: save_file({"x": torch.zeros(1)}, "/nowhere/x.safetensors")), "(No such file or directory)"),
        (_Remote(OSError(errno.ENOSPC, "No space left on device", "/tmp/x")), "/tmp/x can't be used"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error, words):
    sentence = os_refusal(error)
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x"), _Remote(1)]
)
def test_other_errors_are_not_called_a_refusal(error):
    assert os_refusal(error) is None
