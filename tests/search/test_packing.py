import pickle

import pytest
import torch

from nasmvt.search.evaluator import EvaluationSetting
from nasmvt.search.packing import fingerprint, pack, unpack
from nasmvt.search.recipe import Recipe


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 3)])
def test_tensors_come_back_exactly(dtype, shape) -> None:
    tensor = (torch.rand(shape) * 2).to(dtype)
    back = unpack(pickle.loads(pickle.dumps(pack(tensor))))
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_tied_tensors_are_packed_once() -> None:
    tensor = torch.rand(3)
    packed = pack({"a": tensor, "b": tensor.detach(), "c": tensor[:2]})
    assert packed["a"] is packed["b"]
    assert packed["a"] is not packed["c"]


def test_unpacking_copies_nothing() -> None:
    packed = pack(torch.rand(100))
    assert unpack(packed).data_ptr() == packed.bytes.ctypes.data


def test_the_fingerprint_sees_names_shapes_and_values() -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    assert fingerprint(base) == fingerprint({name: tensor.clone() for name, tensor in base.items()})
    others = [
        {**base, "b": torch.ones(2) * 2},
        {"a": base["a"].reshape(2, 2), "b": base["b"]},
        {"c": base["a"], "b": base["b"]},
    ]
    assert len({fingerprint(other) for other in [base, *others]}) == 4


def test_a_recipe_rebuilds_the_supernet(supernet) -> None:
    batches = {task: [] for task in supernet.tasks}
    setting = EvaluationSetting(sharing=supernet.sharing("none"), images=batches, recalibration=batches)
    evaluator = pickle.loads(pickle.dumps(Recipe.of(supernet, setting)))()
    rebuilt, arch = evaluator.supernet, supernet.space.largest
    assert evaluator.setting.sharing == supernet.sharing("none")
    assert rebuilt.sharing() == supernet.sharing()
    for task in supernet.tasks:
        expected = supernet.materialize(arch, tasks=(task,)).task(task).state_dict()
        found = rebuilt.materialize(arch, tasks=(task,)).task(task).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
