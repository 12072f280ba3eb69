"""16 bits inside the networks, float32 around them: what heads return, anchors, scores, and what is refused."""

import pytest
import torch

from nasmvt.data.types import Batch
from nasmvt.errors import UserError
from nasmvt.heads.anchors import StridedAnchors
from nasmvt.tasks.evaluate import evaluate
from nasmvt.tasks.precision import autocast, check_precision, parse_precision, tensor_floats
from nasmvt.tasks.recalibrate import recalibrate
from tests.conftest import make_batch
from tests.tasks.test_networks import KINDS, targets_of


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_compute_in_16_bits_and_their_losses_in_32(kind, precision, make_task, make_network):
    network, seen = make_network(make_task(kind)).train(), []
    network.backbone.register_forward_hook(lambda module, inputs, maps: seen.append(maps[-1].dtype))
    with autocast(precision, "cpu"):
        losses = network.loss(torch.rand(2, 3, 64, 64), targets_of(kind))
    assert seen == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_near_those_of_float32(kind, make_task, make_network):
    network, images, targets = make_network(make_task(kind)).train(), torch.rand(2, 3, 64, 64), targets_of(kind)
    sums = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(1)
        network.zero_grad()
        with autocast(precision, "cpu"):
            losses = network.loss(images, targets)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        sums[precision] = total.detach()
        assert {parameter.grad.dtype for parameter in network.parameters() if parameter.grad is not None} == {
            torch.float32
        }
    torch.testing.assert_close(sums["bf16"], sums["fp32"], rtol=0.02, atol=0)
    assert not torch.equal(sums["bf16"], sums["fp32"])


def test_anchors_of_a_map_in_16_bits_are_whole_pixels_everywhere():
    maps = torch.zeros(1, 1, 1, 515, dtype=torch.bfloat16)  # bfloat16 has no 1030, and rounds it to 1032
    anchors = StridedAnchors([2], 2, [1.0])(type("Images", (), {"image_sizes": [(2, 1030)]})(), [maps])[0]
    assert anchors.dtype == torch.float32
    assert anchors[514].tolist() == [1028 - 2, -2, 1028 + 2, 2]


def test_the_scores_gradient_is_the_product_in_float32(supernet, space):
    images, targets = make_batch("classification")
    with autocast("bf16", "cpu"):
        losses = supernet.network_for_step(space.largest, "cls").loss(images, targets)
    losses["loss_class"].backward()
    score = supernet.scores["backbone/blocks/0/fc1"]
    own = supernet.networks["cls"].backbone.blocks[0].fc1
    shared = {leaf: supernet.shared[f"backbone/blocks/0/fc1/{leaf}"] for leaf in ("weight", "bias")}
    used = {leaf: tensor if score > 0.5 else getattr(own, leaf) for leaf, tensor in shared.items()}
    expected = sum(
        (used[leaf].grad * (shared[leaf] - getattr(own, leaf))).sum().detach() for leaf in ("weight", "bias")
    )
    assert score.grad.dtype == torch.float32
    torch.testing.assert_close(score.grad[0], expected, rtol=1e-5, atol=1e-7)


def test_evaluation_and_recalibration_compute_in_the_precision(make_task, make_network):
    network, seen = make_network(make_task("segmentation")), []
    network.backbone.register_forward_hook(lambda module, inputs, maps: seen.append(maps[-1].dtype))
    task = make_task("segmentation")
    batch = Batch(images=torch.zeros(2, 3, 64, 64), targets=torch.zeros(2, 64, 64, dtype=torch.uint8), infos=None)
    recalibrate(network, [batch], "cpu", precision="bf16")
    evaluate(network, [batch], task, "cpu", "bf16")
    evaluate(network, [batch], task, "cpu")
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_what_there_is_not_is_refused():
    with pytest.raises(UserError, match="the precision must be one of fp32, bf16, fp16, not 'fp8'"):
        parse_precision("fp8", "cpu")
    with pytest.raises(UserError, match=r"the device meta can't compute in bf16 .*: use fp32"):
        check_precision("bf16", "meta")
    check_precision("fp32", "meta")
    assert parse_precision("fp16", "cpu") == "fp16"


def test_tf32_is_set_for_a_while():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    for allowed in (True, False):
        with tensor_floats(allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
    with tensor_floats(None):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == before
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before
