"""Small spaces of every shipped family: the nano spaces, one here for each family without, and one that rounds."""

from nasmvt.config import parse
from nasmvt.resources import shipped
from nasmvt.space import SearchSpace, load_space

_STAGES = range(1, 7)

WITHOUT_NANO = {
    "efficientnet": {
        "choices": {
            **{f"depth{i}": [1, 2] if i == 3 else [1] for i in _STAGES},
            **{f"expansion{i}": {"options": [2, 3], "per": f"depth{i}"} for i in _STAGES},
            **{f"kernel_size{i}": {"options": [3, 5], "per": f"depth{i}"} for i in _STAGES},
        },
        "fixed": {"widths": [8, 8, 8, 16, 16, 16, 24], "stem_width": 8, "head_width": 32, "same_padding": True},
    },
    "convnext": {
        "choices": {
            **{f"embed_dim{i}": [8, 12] for i in range(1, 5)},
            **{f"depth{i}": [1, 2] if i == 2 else [1] for i in range(1, 5)},
            **{f"mlp_ratio{i}": {"options": [1, 2], "per": f"depth{i}"} for i in range(1, 5)},
        },
        "fixed": {"layer_scale": 1.0},
    },
    "vit": {
        "choices": {
            "depth": [4, 5],
            "embed_dim": [16, 24],
            "num_heads": {"options": [1, 2], "per": "depth"},
            "mlp_ratio": {"options": [1, 2], "per": "depth"},
        },
        "fixed": {"head_dim": 8, "patch_size": 8, "register_tokens": 2, "layer_scale": 1.0, "window_size": 3},
    },
}

ROUNDED = {
    "name": "vit_mvt_rounded",
    "family": "vit_mvt",
    "round_to": 8,
    "choices": {
        "depth": [4, 5],
        "embed_dim": [13, 20, 36],
        "num_heads": {"options": [1, 2], "per": "depth"},
        "mlp_ratio": {"options": [1.3, 2.2], "per": "depth"},
    },
    "fixed": {"head_dim": 8, "patch_size": 8, "stem_width": 8, "window_size": 4, "drop_path": 0.0},
}
"""Widths that are no multiples of 8 but for the setting."""

SMALL: dict[str, SearchSpace] = {
    **{name: load_space(name) for name in shipped("search_spaces") if name.endswith("_nano")},
    **{
        name: parse(SearchSpace, {"name": f"{name}_small", "family": name, **values}, name)
        for name, values in WITHOUT_NANO.items()
    },
    "vit_mvt_rounded": parse(SearchSpace, ROUNDED, "vit_mvt_rounded"),
}
"""By name."""
