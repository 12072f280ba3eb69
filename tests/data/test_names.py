import pickle

import pytest

from nasmvt.data.names import Blobs, Names

TEXTS = ["", "a/b.jpg", "Bär.png", "b\udce4r", "日本.tif"]


def test_texts_come_back_as_they_were():
    names = Names(TEXTS)
    assert len(names) == 5
    assert list(names) == TEXTS
    assert (names[-1], names[1:3]) == (TEXTS[-1], TEXTS[1:3])
    assert list(pickle.loads(pickle.dumps(names))) == TEXTS
    with pytest.raises(IndexError, match="no entry 5 among 5"):
        names[5]


def test_bytes_and_their_lengths():
    blobs = Blobs([b"ab", b"", memoryview(b"xyz")])
    assert list(blobs) == [b"ab", b"", b"xyz"]
    assert blobs.lengths().tolist() == [2, 0, 3]
    assert len(Blobs([])) == len(Names([])) == 0


def test_they_take_little_more_memory_than_their_letters():
    names = Names(f"folder/{number:06}.jpg" for number in range(10_000))
    assert len(pickle.dumps(names)) < 10_000 * (17 + 8) + 1000
