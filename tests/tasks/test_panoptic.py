"""Panoptic segmentation: quality, fusion and the whole path against vectors of the released code."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nasmvt.data.panoptic import Segment, Segments
from nasmvt.data.types import DataInfo, ImageInfo
from nasmvt.families.layers import Classifier
from nasmvt.families.lvt import LVT
from nasmvt.families.lvt_head import convert
from nasmvt.families.reference import rename
from nasmvt.heads import MaskRCNNHead
from nasmvt.heads.detector_names import MM_PANOPTIC, laid_out
from nasmvt.heads.fusion import Fusion
from nasmvt.heads.panoptic_fpn import PanopticFPNHead
from nasmvt.heads.segmentation import resize
from nasmvt.tasks.masks import paste_masks
from nasmvt.tasks.panoptic import PanopticNetwork, PanopticPrediction
from nasmvt.tasks.panoptic_fpn import PanopticFPNConfig, build
from nasmvt.tasks.panoptic_quality import PanopticQuality

PARITY = Path(os.environ.get("NASMVT_SHARED", "../shared")) / "parity"


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    path = PARITY / f"{name}.json"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    return json.loads(path.read_text()), load_file(path.with_suffix(".safetensors"))


def close(ours: Tensor, theirs: Tensor, bound: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=bound * float(theirs.abs().max()))


def quality_case(facts: dict[str, Any], tensors: dict[str, Tensor], image: dict[str, Any]) -> tuple[Any, Segments]:
    """The prediction and the target of an image of the vectors."""
    place = {category["id"]: number for number, category in enumerate(facts["categories"])}
    thing = {category["id"]: bool(category["isthing"]) for category in facts["categories"]}
    index = image["index"]

    def segments(items: list[dict[str, Any]]) -> tuple[Segment, ...]:
        return tuple(
            Segment(
                id=item["id"],
                label=place[item["category_id"]],
                thing=thing[item["category_id"]],
                area=item.get("area", 0),
                crowd=bool(item.get("iscrowd", 0)),
            )
            for item in items
        )

    prediction = PanopticPrediction(
        ids=tensors[f"pred.{index}"].long(), segments=segments(image["pred_segments"]), classes=()
    )
    return prediction, Segments.of(tensors[f"gt.{index}"].numpy(), segments(image["gt_segments"]))


def test_panoptic_quality_is_that_of_the_coco_evaluation() -> None:
    facts, tensors = read("panoptic_quality")
    cases = [(image, *quality_case(facts, tensors, image)) for image in facts["images"]]
    every = PanopticQuality(len(facts["categories"]), 3)
    for image, prediction, target in cases:
        single = PanopticQuality(len(facts["categories"]), 3)
        for metric in (every, single):
            metric.update([prediction], [target])
        figures = single.compute()
        assert [figures["pq"], figures["sq"], figures["rq"]] == [
            pytest.approx(100 * image["all"][key], abs=1e-12) for key in ("pq", "sq", "rq")
        ], image["name"]
    figures = every.compute()
    for part, suffix in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
        for key in ("pq", "sq", "rq"):
            assert figures[key + suffix] == pytest.approx(100 * facts["total"][part][key], abs=1e-12)
    parts = [PanopticQuality(len(facts["categories"]), 3) for _ in range(2)]
    for number, (_, prediction, target) in enumerate(cases):
        parts[number % 2].update([prediction], [target])
    parts[0].add(parts[1])
    assert parts[0].compute() == pytest.approx(figures, abs=1e-12)


def test_hotcoco_computes_the_same(tmp_path: Path) -> None:
    """The package's evaluation reads files; so what is written here is COCO's format, too."""
    panoptic = pytest.importorskip("hotcoco.panoptic")
    facts, tensors = read("panoptic_quality")
    metric = PanopticQuality(len(facts["categories"]), 3)
    files: dict[str, dict[str, Any]] = {}
    for side in ("gt", "pred"):
        (tmp_path / side).mkdir()
        files[side] = {"images": [], "categories": facts["categories"], "annotations": []}
    for image in facts["images"]:
        prediction, target = quality_case(facts, tensors, image)
        metric.update([prediction], [target])
        truth = PanopticPrediction(ids=target.ids().long(), segments=target.segments, classes=())
        for side, drawn in (("gt", truth), ("pred", prediction)):
            drawn.images()["panoptic"].save(tmp_path / side / f"{image['index']}.png")
            files[side]["images"].append({"id": image["index"], "file_name": f"{image['index']}.jpg"})
            files[side]["annotations"].append(
                {
                    "image_id": image["index"],
                    "file_name": f"{image['index']}.png",
                    "segments_info": image[f"{side}_segments"],
                }
            )
    for side, content in files.items():
        (tmp_path / f"{side}.json").write_text(json.dumps(content))
    paths = [str(tmp_path / name) for name in ("gt.json", "pred.json", "gt", "pred")]
    result = panoptic.pq_compute(*paths)
    figures = metric.compute()
    for part, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for key in ("pq", "sq", "rq"):
            assert figures[key + suffix] == pytest.approx(100 * result[part][key], abs=1e-12)


def test_fusion_of_objects_and_stuff() -> None:
    facts, tensors = read("panoptic_fusion")
    config, size = facts["config"], (48, 64)
    masks = paste_masks(tensors["mask_logits"][:, 0].sigmoid(), tensors["det"][:, :4], size)
    assert torch.equal(masks, tensors["masks"] >= 0.5)
    scores, labels, semantic = tensors["det"][:, 4], tensors["labels"], tensors["seg_logits"].argmax(0)
    counts = (config["things"], config["stuff"])
    fuse = Fusion(overlap=config["overlap"], least_stuff=config["stuff_area_limit"])
    assert torch.equal(fuse(masks, scores, labels, semantic, *counts), tensors["pan"])
    assert torch.equal(fuse(masks[:0], scores[:0], labels[:0], semantic, *counts), tensors["pan_no_instances"])
    free = Fusion(overlap=0.3, least_stuff=0)
    assert torch.equal(free(masks, scores, labels, semantic, *counts), tensors["pan_overlap03_nolimit"])

    ids = torch.where(tensors["pan"] == config["void"], 0, tensors["pan"])
    written = PanopticPrediction(ids=ids, segments=(), classes=()).images()["panoptic"]
    assert np.array_equal(np.asarray(written), tensors["png_rgb"].numpy())


def small_head(facts: dict[str, Any], **changes: Any) -> PanopticFPNHead:
    config = facts["config"]
    detector = MaskRCNNHead((4, 8, 16, 32, 64), config["things"], width=16, box_convs=0, box_hidden=8)
    return PanopticFPNHead(
        detector,
        (config["in_channels"],) * 4,
        (4, 8, 16, 32),
        config["things"],
        config["stuff"],
        config["inner_channels"],
        config["gn_groups"],
        config["loss_weight"],
    )


def test_the_semantic_branch_its_targets_and_loss() -> None:
    facts, tensors = read("panoptic_head")
    head = small_head(facts)
    published = {f"semantic_head.{k.removeprefix('state.')}": v for k, v in tensors.items() if k.startswith("state.")}
    renamed = rename(published, MM_PANOPTIC)
    state = {key.removeprefix("head."): value for key, value in renamed.items()}
    assert {key for key in head.state_dict() if not key.startswith("detector.")} == set(state)
    head.load_state_dict(state, strict=False)
    for size in ("64x96", "96x64"):
        maps = [tensors[f"input.{level}.{size}"] for level in range(4)]
        logits, target = head.semantic(maps), tensors[f"target.{size}"][:, 0]
        close(logits, tensors[f"logits.{size}"])
        reduced = head.reduced(target)
        assert torch.equal(reduced, tensors[f"target_reduced.{size}"][:, 0].long())
        loss = head.loss(logits, reduced)["loss_semantic"]
        close(loss, tensors[f"loss.{size}"])
        other = reduced.repeat_interleave(2, 1).repeat_interleave(2, 2)
        close(head.loss(logits, other)["loss_semantic"], tensors[f"loss_other_size.{size}"])
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in head.named_parameters()}
    for key, value in tensors.items():
        if key.startswith("grad."):
            (name,) = rename({f"semantic_head.{key.removeprefix('grad.')}": value}, MM_PANOPTIC)
            gradient = gradients[name.removeprefix("head.")]
            assert gradient is not None
            close(gradient, value, 1e-4)


def test_the_whole_path_of_a_small_lvt() -> None:
    facts, tensors = read("panoptic_fpn")
    config, shapes = facts["config"], facts["shapes"]
    names = ("num_heads", "mlp_ratios", "sr_ratios", "mlp_depconv")
    sizes = {name: config["backbone"][name] for name in names}
    rasa = {"atrous_rates": config["rasa"]["atrous_rates"], "recursions": config["rasa"]["r_num"]}
    backbone = LVT(
        embed_dims=config["backbone"]["embed_dims"],
        depths=config["backbone"]["layers"],
        mixers=config["backbone"]["sa_layers"],
        **sizes,
        **rasa,
    )
    head = PanopticFPNConfig(
        width=config["fpn_channels"],
        box_convs=0,
        box_linears=2,
        box_hidden=config["fc"],
        mask_convs=4,
        pre_nms=(1000, 1000),
        post_nms=(1000, 1000),
        semantic_channels=config["semantic_inner"],
        semantic_groups=config["gn_groups"],
        least_stuff=config["panoptic"]["stuff_area_limit"],
    )
    classes = tuple(map(str, range(config["things"] + config["stuff"])))
    info = DataInfo(kind="panoptic", classes=classes, things=config["things"], has_masks=True)
    parts = build(backbone.widths, backbone.strides, head, info)
    network = PanopticNetwork(backbone, parts, classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)
    counts = {
        "backbone": sum(p.numel() for p in network.backbone.parameters()),
        "neck": sum(p.numel() for p in network.neck.parameters()),
        "rpn_head": sum(p.numel() for p in network.head.detector.rpn.parameters()),
        "roi_head": sum(p.numel() for p in network.head.detector.roi_heads.parameters()),
    }
    assert counts == {name: facts["params"][name] for name in counts}

    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    inside = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    outside = {key: value for key, value in state.items() if not key.startswith("backbone.")}
    converted = convert(inside, Classifier(backbone, nn.Identity()))
    network.load_state_dict(
        {name: tensor for name, tensor in converted.items() if name.startswith("backbone.")}
        | laid_out(rename(outside, MM_PANOPTIC))
    )
    network.eval()

    images = tensors["input"]
    resized, padded, original = (tuple(shapes[name]) for name in ("resized", "padded", "original"))
    image_info = ImageInfo(id=0, size=original, valid=resized, canvas=padded)
    with torch.inference_mode():
        maps = network.maps(images)
        close(maps[0], tensors["fpn.0"], 1e-4)
        close(maps[4], tensors["fpn.4"], 1e-4)
        (found,), logits = network.head.panoptic(maps, [resized])
    order = tensors["det"][:, 4].argsort(descending=True, stable=True)
    close(found["scores"], tensors["det"][order, 4], 1e-4)
    assert torch.equal(found["labels"], tensors["labels"][order])
    scale = torch.tensor([original[1] / resized[1], original[0] / resized[0]] * 2)
    close(found["boxes"] * scale, tensors["det"][order, :4], 1e-4)
    on_image = resize(resize(logits, padded)[:, :, : resized[0], : resized[1]], original)
    close(on_image, tensors["seg_logits"], 1e-4)
    (prediction,) = network.predict(images, [image_info])
    void = config["things"] + config["stuff"]
    assert torch.equal(torch.where(prediction.ids == 0, void, prediction.ids), tensors["pan"])
    counts_of = {segment.id: segment.area for segment in prediction.segments}
    assert sum(counts_of.values()) == int((tensors["pan"] != void).sum())
    assert prediction.to_json()["segments_info"][0]["category"] == classes[prediction.segments[0].label]
