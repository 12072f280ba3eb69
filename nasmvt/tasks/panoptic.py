"""Panoptic segmentation: network and prediction; its metric is in `panoptic_quality.py`.

Shapes: B batch, n objects, H, W of the image, h, w of a map.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nasmvt.data.geometry import Size
from nasmvt.data.panoptic import VOID, Segment
from nasmvt.data.protocols import KeepRatioProtocol
from nasmvt.data.types import IGNORE, DataInfo, ImageInfo
from nasmvt.errors import UserError
from nasmvt.heads.fusion import INSTANCES
from nasmvt.tasks.drawing import draw_regions
from nasmvt.tasks.kinds import KINDS, Kind
from nasmvt.tasks.masks import paste_masks
from nasmvt.tasks.matching import counted, disagreement, with_count
from nasmvt.tasks.modes import evaluating
from nasmvt.tasks.network import Prediction, TaskNetwork, valid_sizes, whole
from nasmvt.tasks.panoptic_quality import PanopticQuality
from nasmvt.tasks.pixels import label_map


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticPrediction(Prediction):
    """The segments of one image."""

    ids: Tensor
    """(H, W) int64: the segment of every pixel, 0 for none."""
    segments: tuple[Segment, ...]
    """Their classes and areas."""
    classes: tuple[str, ...]
    """Class names."""

    def to_json(self) -> dict[str, Any]:
        """Return `size` and `segments_info`, as COCO's result files have it.

        Each segment has `id`, `category` (the name), `label` (the index of the class), `isthing` and `area`. The map of
        ids is an image (see `images`).
        """
        segments = [
            {
                "id": segment.id,
                "category": self.classes[segment.label],
                "label": segment.label,
                "isthing": int(segment.thing),
                "area": segment.area,
            }
            for segment in self.segments
        ]
        return {"size": list(self.ids.shape), "segments_info": segments}

    def draw(self, image: Tensor, min_score: float) -> Image.Image:
        """Colour the pixels by class; lines separate the segments."""
        return _drawn(image, self.ids.cpu(), self.segments, self.classes)

    def images(self) -> dict[str, Image.Image]:
        """Return the map of ids as COCO writes it: id = red + 256 green + 65536 blue."""
        ids = self.ids.cpu().numpy()
        return {"panoptic": Image.fromarray(np.stack((ids, ids >> 8, ids >> 16), axis=-1).astype(np.uint8))}


class PanopticNetwork(TaskNetwork):
    """A network whose head has `panoptic(maps, sizes)`.

    It returns detections of things as a detector does, and logits (B, S + 1, h, w) of the classes of stuff and any
    thing. The head also has `things`, `stuff` and `fusion`, and for other runtimes `panoptic_static`.
    """

    static_inputs = ("images", "sizes")

    def forward(self, images: Tensor) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Return the head's detections and logits of images (B, 3, H, W); needs evaluation mode."""
        found: tuple[list[dict[str, Tensor]], Tensor] = self.head.panoptic(self.maps(images), whole(images))
        return found

    def _predict(self, images: Tensor, infos: Sequence[ImageInfo]) -> list[PanopticPrediction]:
        found, logits_BShw = self.head.panoptic(self.maps(images), [info.valid for info in infos])
        return self._predictions(found, logits_BShw, infos, (images.shape[2], images.shape[3]))

    def static(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Return places of detections (see `DetectionNetwork.static`) and `logits` (B, S + 1, h, w).

        What makes one map of them, drawing objects one after the other until their pixels are taken, is left to `read`.
        """
        if not hasattr(self.head, "panoptic_static"):
            raise UserError(
                f"the head {type(self.head).__name__} has no form of static shapes: export with a head that has a "
                "method 'panoptic_static', or run the model in PyTorch"
            )
        found, logits_BShw = self.head.panoptic_static(self._maps(images), sizes)
        return {**with_count(found), "logits": logits_BShw}

    def read(
        self, outputs: Mapping[str, Tensor], infos: Sequence[ImageInfo], canvas: tuple[int, int]
    ) -> list[PanopticPrediction]:
        """Fuse detections and logits to segments of the original images."""
        places = {name: tensor for name, tensor in outputs.items() if name != "logits"}
        return self._predictions(counted(places), outputs["logits"], infos, canvas)

    def disagreement(self, outputs: Mapping[str, Tensor], images: Tensor, infos: Sequence[ImageInfo]) -> float:
        """Compare with what `panoptic` says: detections (see `nasmvt.tasks.matching`), logits as numbers."""
        with evaluating(self), torch.inference_mode():
            ours, logits_BShw = self.head.panoptic(self.maps(images), valid_sizes(images, infos))
        places = {name: tensor for name, tensor in outputs.items() if name != "logits"}
        side = float(max(images.shape[2:]))
        worst = (outputs["logits"] - logits_BShw).abs().max() / logits_BShw.abs().max().clamp(min=1e-12)
        found = (disagreement(own, other, side) for own, other in zip(ours, counted(places), strict=True))
        return max(float(worst), *found)

    def _predictions(
        self, found: Sequence[dict[str, Tensor]], logits_BShw: Tensor, infos: Sequence[ImageInfo], canvas: Size
    ) -> list[PanopticPrediction]:
        return [
            self._fused(objects, label_map(logits.float(), canvas, info), info)
            for objects, logits, info in zip(found, logits_BShw, infos, strict=True)
        ]

    def _fused(self, objects: dict[str, Tensor], semantic_HW: Tensor, info: ImageInfo) -> PanopticPrediction:
        (height, width), (rows, columns) = info.size, info.valid
        scale = objects["boxes"].new_tensor((width / columns, height / rows) * 2)
        masks = paste_masks(objects["masks"], objects["boxes"] * scale, info.size)
        things, stuff = self.head.things, self.head.stuff
        panoptic = self.head.fusion(masks, objects["scores"], objects["labels"], semantic_HW, things, stuff)
        ids = torch.where(panoptic == things + stuff, VOID, panoptic)
        values, counts = ids.unique(return_counts=True)
        segments = tuple(
            Segment(id=value, label=value % INSTANCES, thing=value >= INSTANCES, area=count)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True)
            if value != VOID
        )
        return PanopticPrediction(ids=ids, segments=segments, classes=self.classes)


def _drawn(image: Tensor, ids_HW: Tensor, segments: Sequence[Segment], classes: Sequence[str]) -> Image.Image:
    labels = torch.full(ids_HW.shape, IGNORE, dtype=torch.int64)
    for segment in segments:
        labels[ids_HW == segment.id] = segment.label
    edges = torch.zeros(ids_HW.shape, dtype=torch.bool)
    edges[:, 1:] |= ids_HW[:, 1:] != ids_HW[:, :-1]
    edges[1:] |= ids_HW[1:] != ids_HW[:-1]
    return draw_regions(image, torch.where(edges, IGNORE, labels), classes)


def draw_target(image: Tensor, target: dict[str, Tensor], info: DataInfo) -> Image.Image:
    """Colour the pixels of an image uint8 (3, H, W) by class, objects apart from one another."""
    labels = target["semantic"].cpu().long()
    inner = torch.zeros_like(labels, dtype=torch.bool)
    for mask in target["masks"].cpu():
        inner[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        inner[1:] |= mask[1:] != mask[:-1]
    return draw_regions(image, torch.where(inner, IGNORE, labels), info.classes)


def results(records: Sequence[Mapping[str, Any]], info: DataInfo) -> dict[str, Any]:
    """Return predictions in COCO's panoptic format.

    An image's id is the number that its file is called by, as in COCO, or else the name of the file.

    Args:
        records: of each image `picture`, `panoptic` (the PNG's name) and `segments_info`.
        info: classes, and the ids that the data set gives them.
    """
    ids = info.category_ids or range(1, len(info.classes) + 1)
    stems = [PurePath(str(record["picture"])).stem for record in records]
    names = [int(stem) if stem.isdecimal() else stem for stem in stems]
    return {
        "images": [
            {"id": name, "file_name": PurePath(str(record["picture"])).name}
            for name, record in zip(names, records, strict=True)
        ],
        "categories": [
            {"id": number, "name": name, "isthing": int(label < info.things)}
            for label, (number, name) in enumerate(zip(ids, info.classes, strict=True))
        ],
        "annotations": [
            {
                "image_id": name,
                "file_name": record["panoptic"],
                "segments_info": [
                    {
                        "id": segment["id"],
                        "category_id": ids[segment["label"]],
                        "isthing": segment["isthing"],
                        "area": segment["area"],
                    }
                    for segment in record["segments_info"]
                ],
            }
            for name, record in zip(names, records, strict=True)
        ],
    }


KINDS.add(
    "panoptic",
    Kind(
        network=PanopticNetwork,
        metric=lambda info: PanopticQuality(len(info.classes), info.things),
        primary=PanopticQuality.primary,
        head="panoptic_fpn",
        draw_target=draw_target,
        results=results,
        placements=("fit", "short_side", "range_crop"),
        protocols=("fit", "keep_ratio"),
        paper=KeepRatioProtocol(short=800, long=1333, divisor=32),
        nominal=DataInfo(kind="panoptic", classes=tuple(map(str, range(133))), has_masks=True, things=80),
        most_classes=IGNORE,
    ),
    __name__,
)
