"""Names of the segmentation heads of mmsegmentation 0.x, and of SegFormer's as LVT uses it, on hierarchical backbones.

Only facts stand here.
"""

from collections.abc import Mapping, Sequence

Rules = Sequence[tuple[str, str]]

NAMES: Mapping[str, Rules] = {
    "upernet": (
        (r"head\.pools\.(\d+)\.0\.(.+)", r"decode_head.psp_modules.\1.1.conv.\2"),
        (r"head\.pools\.(\d+)\.1\.(.+)", r"decode_head.psp_modules.\1.1.bn.\2"),
        (r"head\.laterals\.(\d+)\.0\.(.+)", r"decode_head.lateral_convs.\1.conv.\2"),
        (r"head\.laterals\.(\d+)\.1\.(.+)", r"decode_head.lateral_convs.\1.bn.\2"),
        (r"head\.fpn_convs\.(\d+)\.0\.(.+)", r"decode_head.fpn_convs.\1.conv.\2"),
        (r"head\.fpn_convs\.(\d+)\.1\.(.+)", r"decode_head.fpn_convs.\1.bn.\2"),
        (r"head\.bottleneck\.0\.(.+)", r"decode_head.bottleneck.conv.\1"),
        (r"head\.bottleneck\.1\.(.+)", r"decode_head.bottleneck.bn.\1"),
        (r"head\.fusion\.0\.(.+)", r"decode_head.fpn_bottleneck.conv.\1"),
        (r"head\.fusion\.1\.(.+)", r"decode_head.fpn_bottleneck.bn.\1"),
        (r"head\.classifier\.(.+)", r"decode_head.conv_seg.\1"),
        (r"auxiliary\.conv\.0\.(.+)", r"auxiliary_head.convs.0.conv.\1"),
        (r"auxiliary\.conv\.1\.(.+)", r"auxiliary_head.convs.0.bn.\1"),
        (r"auxiliary\.classifier\.(.+)", r"auxiliary_head.conv_seg.\1"),
    ),
    "semantic_fpn": (
        (r"neck\.1\.fpn\.inner_blocks\.(\d+)\.0\.(.+)", r"neck.lateral_convs.\1.conv.\2"),
        (r"neck\.1\.fpn\.layer_blocks\.(\d+)\.0\.(.+)", r"neck.fpn_convs.\1.conv.\2"),
        (r"head\.branches\.(\d+)\.(\d+)\.0\.(.+)", r"decode_head.scale_heads.\1.\2.conv.\3"),
        (r"head\.branches\.(\d+)\.(\d+)\.1\.(.+)", r"decode_head.scale_heads.\1.\2.bn.\3"),
        (r"head\.classifier\.(.+)", r"decode_head.conv_seg.\1"),
    ),
    "segformer": (
        *((rf"head\.linears\.{level}\.(.+)", rf"decode_head.linear_c{level + 1}.proj.\1") for level in range(4)),
        (r"head\.fusion\.0\.(.+)", r"decode_head.linear_fuse.conv.\1"),
        (r"head\.fusion\.1\.(.+)", r"decode_head.linear_fuse.bn.\1"),
        (r"head\.classifier\.(.+)", r"decode_head.linear_pred.\1"),
        (r"head\.unused\.(.+)", r"decode_head.conv_seg.\1"),
    ),
}
"""By head: our names, below the task network, to the published ones."""
