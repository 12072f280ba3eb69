"""The head of token labelling: equal to the released code, on any family, in a supernet."""

import pytest
import torch

from nasmvt.config import parse
from nasmvt.data.types import Batch, DataInfo
from nasmvt.errors import UserError
from nasmvt.families.lvt_head import convert
from nasmvt.families.reference import load_reference
from nasmvt.heads.token_labels import MixToken, dense_targets, mixed, smoothed, token_losses
from nasmvt.supernet import Supernet
from nasmvt.tasks import Task, TaskConfig
from nasmvt.tasks.build import build_network
from nasmvt.tasks.network import whole_infos
from nasmvt.tasks.recalibrate import recalibrate
from nasmvt.tasks.teaching import check_lessons
from nasmvt.tasks.trainable import undecayed
from tests.conftest import CLASSES, make_batch, randomize
from tests.families.reference import load_vectors
from tests.families.test_lvt import LVT, sizes_of, worst

BOUND = 1e-5


def make_task(classes: int, **head) -> Task:
    values = {"kind": "classification", "head": {"type": "class_attention", "head_dim": 8, **head}}
    names = CLASSES if classes == len(CLASSES) else tuple(map(str, range(classes)))
    return Task(name="cls", config=parse(TaskConfig, values, "t"), info=DataInfo(kind="classification", classes=names))


@pytest.fixture(scope="module")
def vectors():
    return load_vectors("token_label")


def reference(vectors, **head):
    meta, tensors = vectors
    config = {**meta["config"], "rasa_cfg": meta["config"]["rasa"], "qkv_bias": False}
    network = make_task(10, mlp_ratio=config["mlp_ratios"][-1], **head).network(LVT(**sizes_of(config)))
    network.mean, network.std = (0.0,) * 3, (1.0,) * 3
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    load_reference(network, state, convert)
    return network


@pytest.mark.parametrize(
    ("name", "grid", "share"), [("size1", None, 1), ("size4", 4, 1), ("size2_mixed_lam0.7", 2, 0.7)]
)
def test_targets_equal_the_original_with_its_transposed_crops(vectors, name, grid, share):
    _, tensors = vectors
    target = dense_targets(
        tensors["label_file"],
        tensors["crop"],
        tensors["class"],
        classes=10,
        grid=None if grid is None else (grid, grid),
        smoothing=0.1,
        transposed=True,
    )
    assert worst(mixed(target, share), tensors[f"target.{name}"]) <= BOUND


def test_losses_gradients_and_evaluation_equal_the_original(vectors, monkeypatch):
    meta, tensors = vectors
    network = reference(vectors).train()
    for number, box in enumerate(meta["boxes_r1c1r2c2"]):
        mix = MixToken(32, box=tuple(box))
        maps = network.backbone(tensors["input"], mix=mix)
        logits, _ = network.head(maps)
        assert worst(logits, tensors[f"train.cls.{number}"]) <= BOUND
        given = {}
        monkeypatch.setattr(network.head, "_target", lambda targets, classes, grid: targets)
        monkeypatch.setattr(network.head.mixing, "forward", lambda stride, box=box: MixToken(stride, box=tuple(box)))
        for name, target, truth in (
            ("loss", tensors["target"], False),
            ("loss_gt", tensors["target"], True),
            ("loss_soft2d", tensors["target.class_only"], False),
        ):
            monkeypatch.setattr(network.head, "config", network.head.config.model_copy(update={"ground_truth": truth}))
            given[name] = sum(network.loss(tensors["input"], target).values())
            assert worst(given[name], tensors[f"{name}.{number}"]) <= BOUND
        if number == 0:
            given["loss"].backward()
            for ours, theirs in (("aux_fc.bias", "aux_head.bias"), ("cls_token",) * 2, ("fc.weight", "head.weight")):
                assert worst(network.head.get_parameter(ours).grad, tensors[f"grad.{theirs}"]) <= 1e-4
    assert worst(network.eval()(tensors["input"]), tensors["eval.logits"]) <= BOUND


def test_tokens_are_swapped_back_to_the_image_that_they_show(vectors):
    meta, tensors = vectors
    network = reference(vectors).train()
    for number, box in enumerate(meta["boxes_r1c1r2c2"]):
        _, tokens = network.head(network.backbone(tensors["input"], mix=MixToken(32, box=tuple(box))))
        top, left, bottom, right = box
        cells = tokens.unflatten(1, (4, 3))
        cells[:, top:bottom, left:right] = cells.flip(0)[:, top:bottom, left:right].clone()
        assert worst(cells.flatten(1, 2), tensors[f"train.aux.{number}"]) <= BOUND


def test_crops_are_not_transposed_unless_asked():
    maps = torch.zeros(1, 2, 1, 4, 6)
    maps[0, 0, 0, :2] = 2  # the upper half
    crop, label = torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([1])
    whole = {
        transposed: dense_targets(maps, crop, label, classes=2, grid=(2, 2), smoothing=0.0, transposed=transposed)
        for transposed in (False, True)
    }
    assert whole[False][0, 0, 2:4].min() > 0.8  # the upper row of cells lies inside
    assert whole[False][0, 0, 1] > whole[True][0, 0, 1] + 0.1
    assert whole[False][0, :, 0].tolist() == [0, 1]


def test_boxes_are_drawn_as_specified():
    torch.manual_seed(0)
    shares = []
    for _ in range(300):
        mix, cells = MixToken(32), torch.zeros(2, 1, 14 * 8 + 3, 7 * 8)
        cells[1] = 1
        changed = mix(cells, 4)[0, 0]
        top, left, bottom, right = mix.box
        assert 0 <= top <= bottom <= 14
        assert 0 <= left <= right <= 7
        assert changed.sum() == 64 * (bottom - top) * (right - left)
        assert not changed.numel() or changed[top * 8 : bottom * 8, left * 8 : right * 8].all()
        shares.append((bottom - top) * (right - left) / 98)
    assert 0.1 < sum(shares) / 300 < 0.4
    assert min(shares) == 0


def test_an_empty_box_leaves_the_target():
    target = torch.rand(2, 3).softmax(1)
    logits, tokens = torch.rand(2, 3), torch.rand(2, 4, 3)
    same = token_losses(logits, tokens, target, (2, 1, 2, 3))
    for with_box, without in zip(same, token_losses(logits, tokens, target, None), strict=True):
        assert torch.equal(with_box, without)


def test_it_is_trained_on_token_labels_in_a_supernet(space):
    task = make_task(len(CLASSES))
    supernet = Supernet(space, {"cls": task})
    randomize(supernet)
    images, labels = make_batch("classification")
    maps = torch.rand(len(images), 2, 2, 5, 5)
    maps[:, 1] = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    targets = {"labels": labels, "maps": maps.half(), "crops": torch.tensor([[0, 0, 0.5, 1.0]] * len(images))}
    losses = supernet.subnet(space.smallest, "cls").train().loss(images, targets)
    assert set(losses) == {"loss_class", "loss_tokens"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for n, p in supernet.named_parameters() if ".head." in n)


def test_plain_labels_are_smoothed_once():
    torch.testing.assert_close(smoothed(torch.eye(4), 0.1).sum(1), torch.ones(4))
    task = make_task(len(CLASSES), mix_alpha=0)
    network = task.network(LVT(embed_dims=(8,) * 4, depths=(1,) * 4, num_heads=(1,) * 4, mlp_ratios=(2,) * 4)).train()
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    hard = network.loss(images, labels)
    soft = network.loss(images, torch.eye(len(CLASSES))[labels])
    for name in hard:
        torch.testing.assert_close(hard[name], soft[name])


def test_the_class_token_does_not_decay_and_widths_must_fit():
    backbone = LVT(embed_dims=(8,) * 4, depths=(1,) * 4, num_heads=(1,) * 4, mlp_ratios=(2,) * 4)
    assert "head.cls_token" in undecayed(make_task(len(CLASSES)).network(backbone))
    with pytest.raises(UserError, match=r"'head_dim' of class attention must divide .* but 3 doesn't divide 8"):
        make_task(len(CLASSES), head_dim=3).network(backbone)


def test_statistics_of_norms_are_those_of_images_that_are_not_mixed(space):
    images, labels = make_batch("classification", size=4)
    batch = Batch(images=images, targets=labels, infos=whole_infos(images))
    statistics = []
    for alpha in (1.0, 0.0):
        network = build_network(space, make_task(len(CLASSES), mix_alpha=alpha), space.smallest)
        randomize(network)
        recalibrate(network, [batch], "cpu")
        statistics.append({name: buffer for name, buffer in network.named_buffers() if "running" in name})
        assert network.train().head.mixing.training
    assert statistics[0]
    assert all(torch.equal(statistics[0][name], statistics[1][name]) for name in statistics[0])


def test_mixed_images_teach_nothing(space):
    with pytest.raises(UserError, match="the head of the task 'cls' mixes them anew for each: set its mix_alpha to 0"):
        check_lessons(space, {"cls": make_task(len(CLASSES))})
