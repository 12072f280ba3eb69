"""Predict images with the ONNX files beside this one: python run_onnx.py TASK IMAGE...

It needs numpy, pillow and onnxruntime. It prints a line of JSON per image; of segmentation it writes IMAGE.labels.png.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def run(session: onnxruntime.InferenceSession, **given: np.ndarray) -> dict[str, np.ndarray]:  # noqa: D103
    found = session.run(None, {item.name: given[item.name] for item in session.get_inputs()})
    return dict(zip([item.name for item in session.get_outputs()], found, strict=True))


def predict(session: onnxruntime.InferenceSession, image: Image.Image, how: dict, kind: str) -> dict[str, np.ndarray]:  # noqa: D103
    if session.get_inputs()[0].name == "image":  # of --with-preprocessing: all is in the graph
        return run(session, image=np.asarray(image))
    high, wide = how["canvas"]
    scale = min(high / image.height, wide / image.width)
    h, w = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    canvas = np.zeros((high, wide, 3), np.uint8) + np.round(np.float32(how["mean"]) * 255).astype(np.uint8)
    canvas[:h, :w] = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR))
    pixels = (canvas / np.float32(255) - np.float32(how["mean"])) / np.float32(how["std"])
    found = run(session, images=pixels.transpose(2, 0, 1)[None].astype(np.float32), sizes=np.array([[h, w]]))
    found = {key: value[0] for key, value in found.items()}
    if kind == "detection":
        boxes = found["boxes"] * np.tile([image.width / w, image.height / h], 2)
        return {"boxes": boxes[: found["count"]], **{key: found[key][: found["count"]] for key in ("labels", "scores")}}
    if kind == "classification":
        shares = np.exp(found["logits"] - found["logits"].max())
        return {"probabilities": shares / shares.sum()}
    maps = [Image.fromarray(m).resize((wide, high), Image.Resampling.BILINEAR) for m in found["logits"]]
    maps = [m.crop((0, 0, w, h)).resize(image.size, Image.Resampling.BILINEAR) for m in maps]
    return {"labels": np.stack([np.asarray(m) for m in maps]).argmax(0).astype(np.uint8)}


def main(folder: Path, name: str, *paths: str) -> None:  # noqa: D103
    task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["tasks"][name]
    how, classes, kind = task["preprocessing"], task["classes"], task["kind"]
    if how["placement"] != "fit" or kind == "panoptic":
        sys.exit(f"this program knows neither the placement '{how['placement']}' nor '{kind}': write them into it")
    whole, core = (folder / "onnx" / f"{name}{end}" for end in (".image.onnx", ".onnx"))
    session = onnxruntime.InferenceSession(str(whole if whole.is_file() else core))
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        found = predict(session, image, how, kind)
        said: object = f"{path}.labels.png"
        if kind == "segmentation":
            Image.fromarray(found["labels"]).save(f"{path}.labels.png")
        elif kind == "classification":
            said = {classes[k]: float(found["probabilities"][k]) for k in found["probabilities"].argsort()[::-1][:5]}
        else:
            rows = zip(found["labels"], found["scores"], found["boxes"], strict=True)
            said = [{"class": classes[k], "score": float(s), "box": b.tolist()} for k, s, b in rows]
        print(json.dumps({"image": path, name: said}))  # noqa: T201


if __name__ == "__main__":
    main(Path(__file__).parent, *sys.argv[1:])
