"""Deformable DETR equals the authors' code, on vectors of it."""

import pytest
import torch
from torch import Tensor, nn

from nasmvt.data.types import DataInfo
from nasmvt.families.reference import rename
from nasmvt.heads.deformable_detr import DeformableDETRHead, Scores, match, matched_losses
from nasmvt.heads.detector_names import DEFORMABLE_DETR
from nasmvt.heads.sizes import Sizes
from nasmvt.tasks import HeadParts
from nasmvt.tasks.deformable_detr import DeformableDETRConfig, build
from tests.families.reference import load_vectors

TINY = {
    "width": 16,
    "heads": 2,
    "points": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "hidden": 8,
    "queries": 6,
    "groups": 4,
}


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


class Vectors:
    def __init__(self) -> None:
        content, self.tensors = load_vectors("heads_deformable_detr")
        given = content["config"]
        config = DeformableDETRConfig(
            width=given["d_model"],
            heads=given["heads"],
            points=given["points"],
            encoder_layers=given["enc_layers"],
            decoder_layers=given["dec_layers"],
            hidden=given["ffn"],
            queries=given["queries"],
        )
        info = DataInfo(kind="detection", classes=tuple(map(str, range(given["num_classes"]))))
        parts = build(given["in_channels"], (8, 16, 32), config, info)
        self.neck, self.head = parts.neck.eval(), parts.head.eval()
        state = {k.removeprefix("state."): v for k, v in self.tensors.items() if k.startswith("state.")}
        nn.ModuleDict({"neck": self.neck, "head": self.head}).load_state_dict(rename(state, DEFORMABLE_DETR))
        self.sizes = Sizes([tuple(size) for size in given["image_sizes"]], tuple(given["batch_size_hw"]))
        self.originals = given["original_sizes"]
        self.maps = self.neck([self[f"input.c{level}"] for level in (3, 4, 5)])
        self.wanted = [(self[f"input.gt.{i}.labels"].long(), self[f"input.gt.{i}.boxes"]) for i in range(2)]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    with torch.no_grad():
        return Vectors()


@torch.no_grad()
def test_maps_masks_positions_and_what_is_said_of_the_queries_are_theirs(vectors: Vectors) -> None:
    head, sides = vectors.head, [m.shape[-2:] for m in vectors.maps]
    cells = head.cells(vectors.maps, vectors.sizes)
    counts = [h * w for h, w in sides]
    for level, (padding, places) in enumerate(
        zip(cells.padding.split(counts, 1), cells.positions.split(counts, 1), strict=True)
    ):
        close(vectors.maps[level], vectors[f"output.src.{level}"])
        assert padding.equal(vectors[f"output.mask.{level}"].flatten(1).bool())
        plain = places.transpose(1, 2) - head.level_embed[level][:, None]
        theirs = vectors[f"output.pos.{level}"].flatten(2)
        assert (plain - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    close(head.encode(cells), vectors["output.encoder"])
    said, every = head(vectors.maps, vectors.sizes)
    assert every is None
    close(torch.stack([scores.logits for scores in said]), vectors["output.logits"])
    close(torch.stack([scores.boxes for scores in said]), vectors["output.boxes"])


@torch.no_grad()
def test_matches_and_losses_of_every_layer_are_theirs(vectors: Vectors) -> None:
    said, _ = vectors.head(vectors.maps, vectors.sizes)
    total = 0.0
    for layer, scores in enumerate(said):
        for i, pair in enumerate(match(scores, vectors.wanted)):
            assert torch.stack(pair).equal(vectors[f"output.train.match.layer{layer}.{i}"].long())
        losses = matched_losses(scores, vectors.wanted, 7)
        suffix = "" if layer == len(said) - 1 else f"_{layer}"
        close(losses["loss_classifier"] / 2, vectors[f"output.train.loss_ce{suffix}"])
        close(losses["loss_box_reg"] / 5, vectors[f"output.train.loss_bbox{suffix}"])
        close(losses["loss_giou"] / 2, vectors[f"output.train.loss_giou{suffix}"])
        total += sum(losses.values())
    close(total, vectors["output.train.total"])

    targets = []
    for (labels, boxes), (height, width) in zip(vectors.wanted, vectors.sizes, strict=True):
        centres, sides = boxes[:, :2], boxes[:, 2:]
        pixels = torch.cat((centres - sides / 2, centres + sides / 2), dim=1) * torch.tensor([width, height] * 2)
        targets.append({"boxes": pixels, "labels": labels})
    losses = vectors.head.losses(vectors.maps, targets, vectors.sizes)
    assert torch.allclose(sum(losses.values()), total)


@torch.no_grad()
def test_the_detections_are_theirs(vectors: Vectors) -> None:
    for i, found in enumerate(vectors.head.detect(vectors.maps, vectors.sizes)):
        assert found["labels"].equal(vectors[f"output.detections.{i}.labels"].long())
        close(found["scores"], vectors[f"output.detections.{i}.scores"])
        (height, width), (rows, columns) = vectors.sizes[i], vectors.originals[i]
        scale = torch.tensor([columns / width, rows / height] * 2)
        close(found["boxes"] * scale, vectors[f"output.detections.{i}.boxes"])


def parts(**settings: bool) -> HeadParts:
    torch.manual_seed(0)
    config = DeformableDETRConfig(**{**TINY, **settings})
    return build((8, 8, 8), (8, 16, 32), config, DataInfo(kind="detection", classes=("a", "b")))


def test_the_weights_start_as_theirs() -> None:
    head = parts().head
    assert head.class_embed[0].bias.tolist() == pytest.approx([-4.59512] * 2)
    assert head.bbox_embed[0][6].weight.abs().sum() == 0
    assert head.bbox_embed[0][6].bias.tolist() == [0, 0, -2, -2]
    attention = head.encoder[0].self_attn
    assert attention.sampling_offsets.weight.abs().sum() == 0
    # two heads look right and left, their points one and two cells away, on each of four levels
    offsets = attention.sampling_offsets.bias.view(2, 4, 2, 2).detach()
    assert torch.allclose(offsets[0, :, :, 0], torch.tensor([1.0, 2.0]).expand(4, 2))
    assert torch.allclose(offsets[1, :, :, 0], torch.tensor([-1.0, -2.0]).expand(4, 2))
    assert offsets[..., 1].abs().max() < 1e-6
    assert head.query_embed.std().item() == pytest.approx(1, abs=0.15)
    assert all(norm.eps == 1e-5 for norm in head.modules() if isinstance(norm, nn.LayerNorm))
    assert [boxes[6].bias[2].item() for boxes in parts(refinement=True).head.bbox_embed] == [-2, 0]
    assert [b[6].bias[2].item() for b in parts(refinement=True, two_stage=True).head.bbox_embed] == [0, 0, 0]


@pytest.mark.parametrize("settings", [{}, {"refinement": True}, {"refinement": True, "two_stage": True}])
def test_every_variant_trains_and_padding_says_nothing(settings: dict[str, bool]) -> None:
    built = parts(**settings)
    neck, head = built.neck.eval(), built.head.eval()
    assert isinstance(head, DeformableDETRHead)
    nn.init.normal_(head.bbox_embed[0][6].weight, std=0.1)
    maps = [torch.randn(1, 8, 64 // s, 64 // s) for s in (8, 16, 32)]
    target = {"boxes": torch.tensor([[4.0, 4, 30, 40]]), "labels": torch.tensor([1])}
    losses = head.losses(neck(maps), [target], Sizes([(64, 48)], (64, 64)))
    names = {"loss_classifier", "loss_box_reg", "loss_giou"}
    ends = ["", "_0"] + ["_encoder"] * ("two_stage" in settings)
    assert set(losses) == {name + end for name in names for end in ends}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())

    levels = neck(maps)
    outside = [level.clone() for level in levels]
    for level in outside:
        level[..., -(level.shape[-1] // 4) or level.shape[-1] :] = 9.0
    a, b = (head(given, Sizes([(64, 48)], (64, 64)))[0][-1] for given in (levels, outside))
    assert torch.allclose(a.logits, b.logits, atol=1e-6)
    assert torch.allclose(a.boxes, b.boxes, atol=1e-6)


def test_refined_boxes_start_from_those_of_the_layer_before() -> None:
    built = parts(refinement=True)
    head = built.head.eval()
    for boxes in head.bbox_embed:  # no layer moves anything
        nn.init.zeros_(boxes[6].bias)
    said, _ = head(built.neck([torch.randn(1, 8, 64 // s, 64 // s) for s in (8, 16, 32)]), [(64, 64)])
    assert torch.allclose(said[0].boxes, said[1].boxes, atol=1e-5)
    nn.init.ones_(head.bbox_embed[1][6].bias)
    moved, _ = head(built.neck([torch.randn(1, 8, 64 // s, 64 // s) for s in (8, 16, 32)]), [(64, 64)])
    assert torch.allclose(moved[1].boxes.logit(), moved[0].boxes.logit() + 1, atol=1e-3)


def test_an_image_without_objects_has_a_loss_of_the_classes_alone() -> None:
    scores = Scores(logits=torch.zeros(1, 3, 2, requires_grad=True), boxes=torch.full((1, 3, 4), 0.5))
    losses = matched_losses(scores, [(torch.zeros(0).long(), torch.zeros(0, 4))], 1)
    # six pairs at p = 1/2: 2 * 0.75 * (1/2)^2 * log 2 each
    assert losses["loss_classifier"].item() == pytest.approx(6 * 2 * 0.75 * 0.25 * 0.693147, rel=1e-5)
    assert losses["loss_box_reg"] == losses["loss_giou"] == 0


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'width' must be a multiple of 4, of 'heads' \(4\) and of twice 'groups' \(32\), but is 96"
    ):
        DeformableDETRConfig(width=96)
    with pytest.raises(ValueError, match="'two_stage' needs boxes that are refined"):
        DeformableDETRConfig(two_stage=True)


class Static(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, fine: Tensor, coarse: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        detect: dict[str, Tensor] = self.head.detect_static((fine, coarse), sizes)
        return detect


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", [{}, {"refinement": True, "two_stage": True}])
def test_a_traced_head_serves_batches_and_images_of_another_size(variant: dict[str, bool]) -> None:
    settings = {key: value for key, value in TINY.items() if key != "groups"} | variant
    head = Static(DeformableDETRHead(8, 3, levels=2, **settings)).eval()  # type: ignore[arg-type]

    def given(batch: int, height: int, width: int) -> tuple[Tensor, ...]:
        fine, coarse = torch.randn(batch, 16, height, width), torch.randn(batch, 16, height // 2, width // 2)
        return fine, coarse, torch.tensor([[8 * height, 5 * width]] * batch)

    arguments, batch, side = given(2, 9, 13), torch.export.Dim("batch"), torch.export.Dim.DYNAMIC
    maps = {0: batch, 2: side, 3: side}
    traced = torch.export.export(head, arguments, dynamic_shapes=[maps, maps, {0: batch}]).module()
    arguments = given(3, 14, 6)
    ours, theirs = head(*arguments), traced(*arguments)
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-5) for name in ours)
    assert ours["boxes"].shape == (3, 18, 4)
