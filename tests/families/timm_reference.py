"""timm's networks with random weights: what our families are compared with."""

import timm
import torch
from torch import Tensor, nn

from nasmvt.families import published


def random_timm(name: str, **settings) -> nn.Module:
    """Make a network of timm in which nothing is equal by chance, statistics and layer scales neither."""
    torch.manual_seed(0)
    network = timm.create_model(name, **settings).eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.9, 1.1)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.empty_like(tensor).uniform_(-0.1, 0.1))
            elif key.endswith(("pos_embed", "_token")):
                tensor.normal_(std=0.3)
    return network


def check_outputs(name: str, reference: nn.Module, sizes: list[tuple[int, int]], **changes) -> None:
    """Compare a published network's logits and number of parameters with timm's, at several sizes of image."""
    ours = published(name, weights=reference.state_dict(), **changes).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    for size in sizes:
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            check_close(ours(images), reference(images))


def check_close(ours: Tensor, theirs: Tensor) -> None:
    """Compare with the largest value as the measure."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-5
