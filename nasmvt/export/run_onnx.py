"""Predict images with the ONNX files beside this one: python run_onnx.py TASK IMAGE...

It needs numpy, pillow and onnxruntime. It prints a line of JSON per image; of segmentation it writes IMAGE.labels.png.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(folder: Path, name: str, *paths: str) -> None:  # noqa: D103
    task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["tasks"][name]
    how, classes = task["preprocessing"], task["classes"]
    if how["placement"] != "fit":
        sys.exit(f"this program places images by 'fit', but {name} by '{how['placement']}': write that into it")
    session = onnxruntime.InferenceSession(str(folder / "onnx" / f"{name}.onnx"))
    high, wide = how["canvas"]
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        scale = min(high / image.height, wide / image.width)
        h, w = max(1, round(image.height * scale)), max(1, round(image.width * scale))
        canvas = np.zeros((high, wide, 3), np.uint8) + np.round(np.float32(how["mean"]) * 255).astype(np.uint8)
        canvas[:h, :w] = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR))
        pixels = (canvas / np.float32(255) - np.float32(how["mean"])) / np.float32(how["std"])
        feed = {"images": pixels.transpose(2, 0, 1)[None].astype(np.float32), "sizes": np.array([[h, w]])}
        feed = {item.name: feed[item.name] for item in session.get_inputs()}
        found = dict(zip([item.name for item in session.get_outputs()], session.run(None, feed), strict=True))
        said: object
        if task["kind"] == "detection":
            boxes = found["boxes"][0] * np.tile([image.width / w, image.height / h], 2)
            rows = zip(found["labels"][0], found["scores"][0], boxes, strict=True)
            said = [{"class": classes[k], "score": float(s), "box": b.tolist()} for k, s, b in rows if s > 0]
        elif task["kind"] == "classification":
            shares = np.exp(found["logits"][0] - found["logits"][0].max())
            said = {classes[k]: float(shares[k] / shares.sum()) for k in shares.argsort()[::-1][:5]}
        else:
            maps = [Image.fromarray(m).resize((wide, high), Image.Resampling.BILINEAR) for m in found["logits"][0]]
            maps = [m.crop((0, 0, w, h)).resize(image.size, Image.Resampling.BILINEAR) for m in maps]
            said = f"{path}.labels.png"
            Image.fromarray(np.stack([np.asarray(m) for m in maps]).argmax(0).astype(np.uint8)).save(said)
        print(json.dumps({"image": path, name: said}))  # noqa: T201


if __name__ == "__main__":
    main(Path(__file__).parent, *sys.argv[1:])
