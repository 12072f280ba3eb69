"""The transformer of Deformable DETR.

Source: Deformable DETR (arXiv:2010.04159) and its released code, in plain PyTorch.

Shapes: B batch, C channels, L levels, N cells of all levels, Q queries (cells in the encoder), h heads, P points, H, W
of a level, D decoder layers.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasmvt.heads.layers import in_float32
from nasmvt.heads.static import levels

Shapes = Sequence[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Reads a few points of every level around a reference, where and how much of each the query says.

    Args:
        width: channels C.
        heads: attention heads h, each of C / h channels.
        levels: number L of levels.
        points: points P that a head reads on a level.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.start()

    def start(self) -> None:
        """Draw the weights: point i of a head lies i cells away, in the direction of the head."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        bias = (directions[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(bias.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries_BQC: Tensor, references_BQLX: Tensor, cells_BNC: Tensor, padding_BN: Tensor, shapes: Shapes
    ) -> Tensor:
        """Return what each query reads, (B, Q, C).

        Args:
            queries_BQC: queries with their positions.
            references_BQLX: centres x, y (X = 2) or boxes x, y, width, height (X = 4), as fractions of each level.
            cells_BNC: the cells of all levels.
            padding_BN: which of them are padding, and read as zeros.
            shapes: height and width of each level.
        """
        batch, queries, _ = queries_BQC.shape
        values = in_float32(self.value_proj(cells_BNC)).masked_fill(padding_BN[..., None], 0.0)
        shape = (batch, queries, self.heads, self.levels, self.points)
        offsets = in_float32(self.sampling_offsets(queries_BQC)).view(*shape, 2)
        weights = in_float32(self.attention_weights(queries_BQC)).view(*shape[:3], -1).softmax(-1)
        centres, extents = references_BQLX[:, :, None, :, None, :2], references_BQLX[:, :, None, :, None, 2:]
        boxes = references_BQLX.shape[-1] == 4
        read = []
        for level, ((height, width), cells) in enumerate(
            zip(shapes, levels(values, [h * w for h, w in shapes]), strict=True)
        ):
            steps = offsets[:, :, :, level]
            if boxes:
                steps = steps / self.points * extents[:, :, :, level] * 0.5
            else:
                steps = torch.stack((steps[..., 0] / width, steps[..., 1] / height), dim=-1)
            places = 2 * (centres[:, :, :, level] + steps) - 1  # as grid_sample counts: -1..1
            maps = cells.unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, (height, width))
            grid = places.transpose(1, 2).flatten(0, 1)
            read.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        points = torch.stack(read, dim=-2).flatten(-2)  # (B * h, C / h, Q, L * P)
        summed = (points * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
        joined = summed.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)
        output: Tensor = self.output_proj(joined)
        return output


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them, a residual and LayerNorm.

    Args:
        width: channels C.
        hidden: channels between the layers.
        dropout: probability of dropping a value while training.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BQC: Tensor) -> Tensor:
        """Return (B, Q, C)."""
        inner = self.linear2(self.dropout1(F.relu(self.linear1(x_BQC))))
        output: Tensor = self.norm(x_BQC + self.dropout2(inner))
        return output


class EncoderLayer(nn.Module):
    """Every cell reads around itself on all levels.

    Args:
        width: channels C.
        heads: attention heads.
        levels: levels.
        points: points that a head reads on a level.
        hidden: channels inside the feed-forward part.
        dropout: probability of dropping a value while training.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(width, heads, levels, points)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.ffn = FeedForward(width, hidden, dropout)

    def forward(
        self, cells_BNC: Tensor, positions_BNC: Tensor, references: Tensor, padding_BN: Tensor, shapes: Shapes
    ) -> Tensor:
        """Return the cells (B, N, C)."""
        read = self.self_attn(cells_BNC + positions_BNC, references, cells_BNC, padding_BN, shapes)
        output: Tensor = self.ffn(self.norm(cells_BNC + self.dropout(read)))
        return output


class DecoderLayer(nn.Module):
    """Every query looks at the others, then reads around its reference.

    The arguments are those of `EncoderLayer`.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.dropout1, self.norm1 = nn.Dropout(dropout), nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, heads, levels, points)
        self.dropout2, self.norm2 = nn.Dropout(dropout), nn.LayerNorm(width)
        self.ffn = FeedForward(width, hidden, dropout)

    def forward(
        self,
        queries_BQC: Tensor,
        positions_BQC: Tensor,
        references: Tensor,
        cells_BNC: Tensor,
        padding_BN: Tensor,
        shapes: Shapes,
    ) -> Tensor:
        """Return the queries (B, Q, C)."""
        placed = queries_BQC + positions_BQC
        looked, _ = self.self_attn(placed, placed, queries_BQC, need_weights=False)
        x = self.norm1(queries_BQC + self.dropout1(looked))
        read = self.cross_attn(x + positions_BQC, references, cells_BNC, padding_BN, shapes)
        output: Tensor = self.ffn(self.norm2(x + self.dropout2(read)))
        return output


def sine_positions(padding_BHW: Tensor, width: int) -> Tensor:
    """Return the position code (B, C, H, W) of the cells of maps: C / 2 numbers for y, then as many for x.

    Args:
        padding_BHW: which cells are padding.
        width: channels C, a multiple of 4.
    """
    valid = (~padding_BHW).float()
    codes = []
    for dim in (1, 2):
        count = valid.cumsum(dim)
        place = (count - 0.5) / (count.narrow(dim, -1, 1) + 1e-6) * 2 * math.pi
        codes.append(sine_code(place, width // 2))
    return torch.cat(codes, dim=-1).permute(0, 3, 1, 2)


def sine_code(values: Tensor, numbers: int) -> Tensor:
    """Return sine and cosine of values (...) at `numbers` / 2 wavelengths, interleaved: (..., `numbers`)."""
    pair = torch.arange(numbers, dtype=torch.float32, device=values.device) // 2
    angles = values[..., None] / 10000 ** (2 * pair / numbers)
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def inverse_sigmoid(values: Tensor) -> Tensor:
    """Return the logits of values in 0..1, which are first moved 1e-5 away from both ends."""
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=1e-5) / (1 - values).clamp(min=1e-5))
