import pytest
import torch
from torch import nn

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.space import SearchSpace
from nasmvt.supernet import Supernet
from nasmvt.tasks.norms import check_norms, check_synchronised
from tests.conftest import TINY_SPACE, make_batch, make_tasks, randomize
from tests.families.small_spaces import SMALL


def changed(tasks, **changes):
    """The tasks with changed settings."""
    found = {}
    for name, task in tasks.items():
        config = parse(type(task.config), {**task.config.model_dump(), **changes}, name)
        found[name] = type(task)(name=name, config=config, info=task.info)
    return found


def test_a_norm_of_a_single_value_is_refused_by_name():
    space, tasks = parse(SearchSpace, TINY_SPACE, "tiny"), make_tasks()
    check_norms(space, tasks)
    one = changed({"det": tasks["det"]}, batch_size=1, data={"image_size": 32}, head={"strides": [8, 32], "width": 16})
    with pytest.raises(UserError, match=r"'neck\.levels\.1\..* of the task 'det' sees one, with 'batch_size' 1"):
        check_norms(space, one)
    two = changed(one, batch_size=2)
    check_norms(space, two)
    with pytest.raises(UserError, match="sees one, with 'batch_size' 2 in 2 parts"):
        check_norms(space, two, parts=2)


@pytest.mark.parametrize("name", ["vit_mvt_nano", "mpvit_nano", "efficientnet"])
def test_synchronised_norms_hold_the_same_tensors_and_evaluate_alike(name):
    supernet = Supernet(SMALL[name], {"seg": make_tasks()["seg"]})
    randomize(supernet)
    arch, images = supernet.space.smallest, make_batch("segmentation")[0]
    plain = supernet.network_for_step(arch, "seg")
    expected, norms = plain.eval()(images), [name for name, module in plain.named_modules() if is_norm(module)]
    supernet.synchronise_norms()
    lent = supernet.network_for_step(arch, "seg")
    assert norms
    assert [name for name, module in lent.named_modules() if isinstance(module, nn.SyncBatchNorm)] == norms
    assert torch.equal(lent.eval()(images), expected)
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in supernet.materialize(arch).modules())


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def test_synchronised_norms_need_cuda():
    with pytest.raises(UserError, match=r"^training.sync_norm needs CUDA, .* but the device is cpu: leave it out"):
        check_synchronised(torch.device("cpu"), "training.sync_norm")
