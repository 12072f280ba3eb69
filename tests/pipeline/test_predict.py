from pathlib import Path

from nasmvt.pipeline.inputs import find_pictures
from tests.data.writers import write_picture


def test_a_folder_holds_the_images_that_training_would_see(tmp_path):
    for name in ("a.png", "b.JPG", "below/c.gif", "._a.png", ".thumbnails/d.png"):
        write_picture(tmp_path / name)
    write_picture(tmp_path / "saved.jpg").rename(tmp_path / "saved.jfif")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "album.jpg").mkdir()
    found = [str(Path(picture.source).relative_to(tmp_path)) for picture in find_pictures([tmp_path])]
    assert sorted(found) == ["a.png", "b.JPG", "below/c.gif", "saved.jfif"]
