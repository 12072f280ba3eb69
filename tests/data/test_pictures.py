import errno
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasmvt.data import UnreadableImage, read_picture
from nasmvt.data.pictures import to_rgb
from nasmvt.errors import UserError
from tests.data.writers import write_broken, write_picture


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 200 * 256 + 7, dtype=np.uint16)).save(path)
    else:
        Image.new("RGB", (6, 4), (200, 200, 200)).convert(mode, dither=Image.Dither.NONE).save(path)
    picture = read_picture(path)
    expected = {"1": 255, "P": 204}.get(mode, 200)  # the web palette has no 200
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    picture = Image.new("P", (6, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "x.png", transparency=b"\x00\x80")
    assert read_picture(tmp_path / "x.png").getpixel((0, 0)) == (10, 20, 30)


def test_images_are_turned_upright_unless_asked_not_to(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").size == (4, 6)
    assert read_picture(tmp_path / "x.jpg", upright=True).size == (4, 6)
    assert read_picture(tmp_path / "x.jpg", upright=False).size == (6, 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 2048, 4095]], dtype=np.uint16), [0, 128, 255]),  # 12 bits
        (np.array([[0, 128, 255]], dtype=np.uint16), [0, 128, 255]),  # 8 bits
        (np.array([[0, 4096, 65535]], dtype=np.uint16), [0, 16, 255]),
        (np.array([[0, 4096, 65535]], dtype=np.int32), [0, 16, 255]),
        (np.array([[-1000, 0, 1000]], dtype=np.int32), [0, 127, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 127, 255]),
        (np.array([[0, 128.7, 255]], dtype=np.float32), [0, 128, 255]),
        (np.array([[0, 2048, 4095]], dtype=np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.5, np.inf]], dtype=np.float32), [0, 127, 0]),
        (np.array([[-2, 0, 2]], dtype=np.float32), [0, 127, 255]),
        (np.array([[0, 0, 1e30]], dtype=np.float32), [0, 0, 255]),
        (np.array([[-2, -2, -2]], dtype=np.float32), [0, 0, 0]),
    ],
)
def test_deep_grey_is_scaled(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "x.tif")
    grey = np.asarray(read_picture(tmp_path / "x.tif"))
    assert grey[0, :, 0].tolist() == grey[0, :, 1].tolist() == expected


def test_no_finite_value_is_unreadable(tmp_path):
    Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImage, match=r"x\.tif can't be decoded \(it holds no finite value\)"):
        read_picture(tmp_path / "x.tif")


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "x.gif").getpixel((0, 0)) == (255, 0, 0)


def test_premultiplied_transparency_and_palettes_with_it_are_read():
    for mode in ("La", "RGBa", "PA"):
        image = Image.new("LA" if mode == "La" else "RGBA", (2, 2), 255 if mode == "La" else "red")
        assert to_rgb(image.convert(mode) if mode != "PA" else Image.new("PA", (2, 2))).mode == "RGB"


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, IndexError, EOFError, zlib.error, MemoryError, OverflowError])
def test_whatever_pillow_raises_names_the_file(tmp_path, monkeypatch, kind):
    def fail(self):
        raise kind

    path = write_picture(tmp_path / "x.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UnreadableImage, match=rf"x\.png can't be decoded \({kind.__name__}\)"):
        read_picture(path)


def test_a_shortage_of_the_machine_is_not_the_fault_of_the_image(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    path = write_picture(tmp_path / "x.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"x\.png can't be opened \(Too many open files\)") as error:
        read_picture(path)
    assert not isinstance(error.value, UnreadableImage)


def test_too_many_pixels_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = write_picture(tmp_path / "x.png")
    with pytest.raises(UnreadableImage, match=r"exceeds limit .* cut it into tiles, or replace it or set"):
        read_picture(path)


def test_damaged_exif_leaves_the_pixels(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (6, 4)).save(path)
    content = path.read_bytes()
    segment = b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12\1\3\0"
    path.write_bytes(content[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:])
    assert read_picture(path).size == (6, 4)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_file_cut_off_is_unreadable_by_name(tmp_path, suffix):
    path = write_broken(tmp_path / f"broken{suffix}")
    with pytest.raises(UnreadableImage, match=r"broken\..* can't be decoded .*skip_unreadable"):
        read_picture(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(UnreadableImage, match=f"{path} can't be decoded .it is a folder, a pipe or a device"):
            read_picture(path)


def test_what_is_no_picture_is_unreadable_by_name(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UnreadableImage, match=r"text\.png"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(UnreadableImage, match=r"absent\.png"):
        read_picture(tmp_path / "absent.png")


def test_reading_closes_the_file_and_keeps_the_pixels(tmp_path):
    path = write_picture(tmp_path / "x.png")
    with Image.open(path) as stored:
        expected = np.array(stored)
    picture = read_picture(path)
    path.unlink()
    assert np.array_equal(np.asarray(picture), expected)
