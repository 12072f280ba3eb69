import numpy as np
import pytest
from PIL import Image

from nasmvt.data import UnreadableImage, read_picture
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


def test_orientation_is_followed_only_if_asked_for(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (6, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").size == (6, 4)
    assert read_picture(tmp_path / "x.jpg", upright=True).size == (4, 6)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_file_cut_off_is_unreadable_by_name(tmp_path, suffix):
    path = write_broken(tmp_path / f"broken{suffix}")
    with pytest.raises(UnreadableImage, match=r"broken\..* can't be decoded .*skip_unreadable"):
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
