"""Deformable DETR: queries that read deformable maps, matched one to one with the objects.

Source: Deformable DETR (arXiv:2010.04159) and its released code. `transformers` has the same network, but other
starting values, dropout and weights of the losses, and takes no backbone of ours.

Shapes: B batch, C channels, L levels, N cells of all levels, Q queries, K classes, H, W of a level, n objects of an
image, D decoder layers.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MLP, box_convert, generalized_box_iou, sigmoid_focal_loss

from nasmvt.heads.boxes import giou
from nasmvt.heads.deformable import (
    DecoderLayer,
    DeformableAttention,
    EncoderLayer,
    Shapes,
    inverse_sigmoid,
    sine_code,
    sine_positions,
)
from nasmvt.heads.layers import in_float32
from nasmvt.heads.sizes import Size

CLASS, L1, GIOU = 2.0, 5.0, 2.0
"""Weights of the losses, and of the costs of a match."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is said of queries, or of cells."""

    logits: Tensor
    """(B, Q, K)."""
    boxes: Tensor
    """(B, Q, 4): centre x, y, width, height as fractions of the image without padding."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The cells of all levels, one after the other."""

    values: Tensor
    """(B, N, C)."""
    positions: Tensor
    """(B, N, C)."""
    padding: Tensor
    """(B, N) bool."""
    ratios: Tensor
    """(B, L, 2): the part of the width and height of each level that is no padding."""
    shapes: Shapes
    """Height and width of each level."""


class DeformableDETRHead(nn.Module):
    """Encoder and decoder of deformable attention, a class and a box per query.

    Args:
        stride: pixels of the image per cell of the first level.
        classes: number K of classes.
        levels: number L of maps that it gets.
        width: their channels C, a multiple of 4 and of the heads.
        heads: attention heads.
        points: points that a head reads on a level.
        encoder_layers: layers of the encoder.
        decoder_layers: layers of the decoder.
        hidden: channels inside the feed-forward parts.
        queries: number Q of queries.
        dropout: probability of dropping a value while training.
        refinement: whether each layer of the decoder corrects the boxes of the one before, with a class layer and box
            layers of its own.
        two_stage: whether the best cells of the encoder give the queries; needs refinement.
        detections: detections per image.
    """

    heavy: ClassVar[tuple[str, ...]] = ("encoder.*", "decoder.*")
    """Patterns of the modules whose activations may be recomputed."""

    def __init__(
        self,
        stride: int,
        classes: int,
        *,
        levels: int = 4,
        width: int = 256,
        heads: int = 8,
        points: int = 4,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        hidden: int = 1024,
        queries: int = 300,
        dropout: float = 0.1,
        refinement: bool = False,
        two_stage: bool = False,
        detections: int = 100,
    ) -> None:
        super().__init__()
        self.stride, self.queries, self.detections = stride, queries, detections
        self.refinement, self.two_stage = refinement, two_stage
        sizes = (width, heads, levels, points, hidden, dropout)
        self.level_embed = nn.Parameter(torch.empty(levels, width))
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        if two_stage:
            self.enc_output, self.enc_output_norm = nn.Linear(width, width), nn.LayerNorm(width)
            self.pos_trans, self.pos_trans_norm = nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width)
        else:
            self.query_embed = nn.Parameter(torch.empty(queries, 2 * width))
            self.reference_points = nn.Linear(width, 2)
        predictions = decoder_layers + two_stage if refinement else 1
        scores, boxes = nn.Linear(width, classes), MLP(width, [width, width, 4])
        self.class_embed = nn.ModuleList(copy.deepcopy(scores) for _ in range(predictions))
        self.bbox_embed = nn.ModuleList(copy.deepcopy(boxes) for _ in range(predictions))
        self.start()

    def start(self) -> None:
        """Draw the weights as the released code does."""
        for layers in (self.encoder, self.decoder):
            for parameter in layers.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.start()
        nn.init.normal_(self.level_embed)
        if self.two_stage:
            nn.init.xavier_uniform_(self.enc_output.weight)
            nn.init.xavier_uniform_(self.pos_trans.weight)
        else:
            nn.init.normal_(self.query_embed)
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)
        for number, (scores, boxes) in enumerate(zip(self.class_embed, self.bbox_embed, strict=True)):
            nn.init.constant_(scores.get_parameter("bias"), -math.log(99))
            last = [layer for layer in boxes.modules() if isinstance(layer, nn.Linear)][-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            if number == 0 and not self.two_stage:
                nn.init.constant_(last.bias[2:], -2.0)

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[Size] | Tensor) -> tuple[list[Scores], Scores | None]:
        """Return what each layer of the decoder says of the queries, and in two stages the encoder of the cells.

        Args:
            maps: L maps (B, C, H, W), the finest first.
            sizes: height and width of each image on the canvas.
        """
        cells = self.cells(maps, sizes)
        memory_BNC = self.encode(cells)
        every, queries_BQC, positions_BQC, references = self._start_queries(memory_BNC, cells)
        said = []
        for number, layer in enumerate(self.decoder):
            placed = references[:, :, None] * cells.ratios.repeat(1, 1, references.shape[-1] // 2)[:, None]
            queries_BQC = layer(queries_BQC, positions_BQC, placed, memory_BNC, cells.padding, cells.shapes)
            said.append(self._said(number if self.refinement else 0, queries_BQC, inverse_sigmoid(references)))
            if self.refinement:
                references = said[-1].boxes.detach()
        return said, every

    def cells(self, maps: Sequence[Tensor], sizes: Sequence[Size] | Tensor) -> Cells:
        """Return the cells of maps with their positions, and where they are padding."""
        canvas = getattr(sizes, "canvas", None) or tuple(side * self.stride for side in maps[0].shape[-2:])
        paddings = [_padding(sizes, canvas, map_BCHW) for map_BCHW in maps]
        positions = [
            sine_positions(padding, maps[0].shape[1]) + level[:, None, None]
            for padding, level in zip(paddings, self.level_embed, strict=True)
        ]
        valid = [torch.stack(((~p[:, 0]).float().mean(1), (~p[:, :, 0]).float().mean(1)), dim=1) for p in paddings]
        return Cells(
            values=torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2),
            positions=torch.cat([p.flatten(2) for p in positions], dim=2).transpose(1, 2),
            padding=torch.cat([p.flatten(1) for p in paddings], dim=1),
            ratios=torch.stack(valid, dim=1),
            shapes=[(m.shape[2], m.shape[3]) for m in maps],
        )

    def encode(self, cells: Cells) -> Tensor:
        """Return the cells (B, N, C) after the encoder."""
        centres = []
        for level, (height, width) in enumerate(cells.shapes):
            grid = _centres(height, width, cells.ratios.device)
            centres.append(grid / cells.ratios[:, None, level])
        references = torch.cat(centres, dim=1)[:, :, None] * cells.ratios[:, None]
        x_BNC = cells.values
        for layer in self.encoder:
            x_BNC = layer(x_BNC, cells.positions, references, cells.padding, cells.shapes)
        return x_BNC

    def _start_queries(self, memory_BNC: Tensor, cells: Cells) -> tuple[Scores | None, Tensor, Tensor, Tensor]:
        """Return what is said of the cells, in two stages, and the queries, their positions and their references."""
        if not self.two_stage:
            positions_QC, queries_QC = self.query_embed.chunk(2, dim=1)
            references = in_float32(self.reference_points(positions_QC)).sigmoid()
            start = (tensor.expand(memory_BNC.shape[0], -1, -1) for tensor in (queries_QC, positions_QC, references))
            return None, *start  # type: ignore[return-value]
        logits, usable_BN = _own_boxes(cells)
        rows_BNC = self.enc_output_norm(self.enc_output(memory_BNC.masked_fill(~usable_BN[..., None], 0.0)))
        every = self._said(len(self.decoder), rows_BNC, logits)
        cells_there = rows_BNC.shape[1]
        queries = min(self.queries, cells_there) if isinstance(cells_there, int) else self.queries  # open in tracing
        best_BQ = every.logits[..., 0].topk(queries, dim=1).indices
        references = every.boxes.gather(1, best_BQ[..., None].expand(-1, -1, 4)).detach()
        code = sine_code(references * 2 * math.pi, memory_BNC.shape[2] // 2).flatten(2)
        positions_BQC, queries_BQC = self.pos_trans_norm(self.pos_trans(code)).chunk(2, dim=2)
        return every, queries_BQC, positions_BQC, references

    def _said(self, number: int, x_BQC: Tensor, start: Tensor) -> Scores:
        """Return classes and boxes of queries; `start` are logits of centres (B, Q, 2), or of boxes (B, Q, 4)."""
        offsets = in_float32(self.bbox_embed[number](x_BQC))
        boxes = (offsets + F.pad(start, (0, 4 - start.shape[-1]))).sigmoid()
        return Scores(logits=in_float32(self.class_embed[number](x_BQC)), boxes=boxes)

    def losses(
        self, maps: Sequence[Tensor], targets: Sequence[dict[str, Tensor]], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """Return the losses of every layer: `loss_classifier` (focal), `loss_box_reg` (L1), `loss_giou`.

        Those of the last layer have these names, those of the others a number from 0 behind it, and those of the
        encoder in two stages `_encoder`. All are divided by the number of objects.

        Args:
            maps: L maps (B, C, H, W), the finest first.
            targets: for each image `boxes` (n, 4) float xyxy in pixels and `labels` (n,) from 0.
            sizes: height and width of each image on the canvas.
        """
        said, every = self(maps, sizes)
        number = _objects_per_process(sum(len(target["boxes"]) for target in targets), maps[0].device)
        wanted = [_as_fractions(target, size) for target, size in zip(targets, sizes, strict=True)]
        losses = {}
        for layer, scores in enumerate(said):
            suffix = f"_{layer}" if layer + 1 < len(said) else ""
            losses.update({name + suffix: loss for name, loss in matched_losses(scores, wanted, number).items()})
        if every is not None:  # the encoder tells objects from none
            single = [(torch.zeros_like(labels), boxes) for labels, boxes in wanted]
            losses.update({f"{n}_encoder": loss for n, loss in matched_losses(every, single, number).items()})
        return losses

    def detect(self, maps: Sequence[Tensor], sizes: Sequence[Size]) -> list[dict[str, Tensor]]:
        """Return the best pairs of query and class of each image, best score first.

        Args:
            maps: L maps (B, C, H, W), the finest first.
            sizes: height and width of each image on the canvas.

        Returns:
            For each image `boxes` (n, 4) xyxy, not clipped, `labels` (n,) from 0 and `scores` (n,) in 0..1.
        """
        found = self.detect_static(maps, sizes)
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]

    def detect_static(self, maps: Sequence[Tensor], sizes: Sequence[Size] | Tensor) -> dict[str, Tensor]:
        """Return what `detect` says, the images being a dimension: `boxes` (B, D, 4), `labels` and `scores` (B, D).

        Args:
            maps: L maps (B, C, H, W), the finest first.
            sizes: height and width of each image on the canvas.
        """
        said, _ = self(maps, sizes)
        logits_BQK, boxes_BQ4 = said[-1].logits, said[-1].boxes
        scores_BD, places_BD = logits_BQK.sigmoid().flatten(1).topk(min(self.detections, logits_BQK[0].numel()), dim=1)
        classes = logits_BQK.shape[2]
        boxes_BD4 = boxes_BQ4.gather(1, (places_BD // classes)[..., None].expand(-1, -1, 4))
        sides_B4 = torch.as_tensor(sizes, device=boxes_BD4.device).flip(1).repeat(1, 2).to(boxes_BD4)
        return {
            "boxes": box_convert(boxes_BD4, "cxcywh", "xyxy") * sides_B4[:, None],
            "labels": places_BD % classes,
            "scores": scores_BD,
        }

    def workload(self, maps: Sequence[Tensor]) -> None:
        """Run encoder and decoder; reading points of maps, which is neither convolution nor matrix product, counts as
        nothing."""
        height, width = (int(side) * self.stride for side in maps[0].shape[-2:])
        self(maps, [(height, width)] * len(maps[0]))


Wanted = tuple[Tensor, Tensor]
"""Labels (n,) and boxes (n, 4) of the objects of an image, as centre, width and height in fractions."""


def matched_losses(scores: Scores, wanted: Sequence[Wanted], number: float) -> dict[str, Tensor]:
    """Match queries with objects, and return the weighted losses over `number`, the objects of a batch."""
    targets_BQK = torch.zeros_like(scores.logits)
    ours, theirs = [], []
    for i, (queries, objects) in enumerate(match(scores, wanted)):
        labels, boxes = wanted[i]
        targets_BQK[i, queries, labels[objects]] = 1
        ours.append(scores.boxes[i, queries])
        theirs.append(boxes[objects])
    boxes_n4, true_n4 = torch.cat(ours), torch.cat(theirs)
    overlaps = giou(box_convert(boxes_n4, "cxcywh", "xyxy"), box_convert(true_n4, "cxcywh", "xyxy"))
    return {
        "loss_classifier": CLASS * sigmoid_focal_loss(scores.logits, targets_BQK, 0.25, 2, reduction="sum") / number,
        "loss_box_reg": L1 * F.l1_loss(boxes_n4, true_n4, reduction="sum") / number,
        "loss_giou": GIOU * (1 - overlaps).sum() / number,
    }


@torch.no_grad()
def match(scores: Scores, wanted: Sequence[Wanted]) -> list[Wanted]:
    """Return, for each image, the queries (n,) and objects (n,) of the cheapest one-to-one match."""
    from scipy.optimize import linear_sum_assignment  # only training needs it

    found = []
    for logits_QK, boxes_Q4, (labels, true_n4) in zip(scores.logits, scores.boxes, wanted, strict=True):
        p = logits_QK.sigmoid()[:, labels]
        positive = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log()
        negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
        overlaps = generalized_box_iou(box_convert(boxes_Q4, "cxcywh", "xyxy"), box_convert(true_n4, "cxcywh", "xyxy"))
        costs = CLASS * (positive - negative) + L1 * torch.cdist(boxes_Q4, true_n4, p=1) - GIOU * overlaps
        # what is not a number is reported by the training loop, which sees it in the losses
        queries, objects = linear_sum_assignment(costs.nan_to_num().cpu().numpy())
        device = logits_QK.device
        found.append((torch.as_tensor(queries, device=device), torch.as_tensor(objects, device=device)))
    return found


def _as_fractions(target: dict[str, Tensor], size: Size) -> Wanted:
    height, width = size
    sides = target["boxes"].new_tensor([width, height, width, height])
    return target["labels"], box_convert(target["boxes"], "xyxy", "cxcywh") / sides


def _objects_per_process(objects: int, device: torch.device) -> float:
    """Return the objects of the batches of all processes over their number, at least 1."""
    if not dist.is_available() or not dist.is_initialized():
        return max(float(objects), 1.0)
    total = torch.tensor(float(objects), device=device)
    dist.all_reduce(total)
    return max(total.item() / dist.get_world_size(), 1.0)


def _padding(sizes: Sequence[Size] | Tensor, canvas: Size, map_BCHW: Tensor) -> Tensor:
    """Return which cells (B, H, W) of a map are padding: the nearest pixel of the canvas says it."""
    sides = []
    for side, cells, dim in zip(canvas, map_BCHW.shape[-2:], (0, 1), strict=True):
        pixels = torch.arange(side, device=map_BCHW.device)
        valid = torch.as_tensor(sizes, device=map_BCHW.device)[:, dim]
        inside = (pixels < valid[:, None]).float()[:, None]
        sides.append(F.interpolate(inside, size=cells, mode="nearest").squeeze(1).bool())
    return ~(sides[0][:, :, None] & sides[1][:, None])


def _centres(height: int, width: int, device: torch.device) -> Tensor:
    """Return the centres (H * W, 2) of cells as fractions x, y of their map, row by row."""
    y, x = ((torch.arange(side, dtype=torch.float32, device=device) + 0.5) / side for side in (height, width))
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x, grid_y), dim=-1).flatten(0, 1)


def _own_boxes(cells: Cells) -> tuple[Tensor, Tensor]:
    """Return the logits (B, N, 4) of a box around every cell, infinite where unusable, and which are usable (B, N).

    A box of level i has the sides 0.05 * 2^i of the image without padding.
    """
    boxes = []
    for level, (height, width) in enumerate(cells.shapes):
        centres = _centres(height, width, cells.ratios.device) / cells.ratios[:, None, level]
        boxes.append(torch.cat((centres, torch.full_like(centres, 0.05 * 2**level)), dim=-1))
    boxes_BN4 = torch.cat(boxes, dim=1)
    usable_BN = ((boxes_BN4 > 0.01) & (boxes_BN4 < 0.99)).all(-1) & ~cells.padding
    return (boxes_BN4 / (1 - boxes_BN4)).log().where(usable_BN[..., None], math.inf), usable_BN
