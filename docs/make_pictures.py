"""Make the README's images from a run such as that of `make demo`.

python docs/make_pictures.py runs/demo
"""

import json
import sys
from pathlib import Path

from PIL import Image

from nasmvt.tasks.draw import draw_grid

OUT = Path(__file__).parent / "pictures"


def drawn_objects(run: Path, number: int) -> int:
    """Return how many detections of an image are drawn; an image without any shows nothing."""
    found = json.loads((run / "predictions" / "det" / f"val-{number:03d}.json").read_text())
    return sum(item["score"] >= 0.3 for item in found["objects"])


def main() -> None:
    """Lay three predictions of every task side by side, and shrink the curves."""
    run = Path(sys.argv[1])
    OUT.mkdir(exist_ok=True)
    cells = []
    for number in sorted(range(8), key=lambda number: -drawn_objects(run, number))[:3]:
        for task in ("cls", "det", "seg"):
            with Image.open(run / "predictions" / task / f"val-{number:03d}.png") as picture:
                cells.append(picture.convert("RGB").crop((0, 0, 256, 272)))
    draw_grid(cells).quantize(128).save(OUT / "predictions.png", optimize=True)
    with Image.open(run / "supernet" / "curves.png") as curves:
        curves.convert("RGB").quantize(64).save(OUT / "curves.png", optimize=True)


if __name__ == "__main__":
    main()
