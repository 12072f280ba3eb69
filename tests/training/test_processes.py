"""What processes tell each other: sums in buckets, averages, flags, whatever else; and what is refused."""

import subprocess
import sys

import torch
from torch import nn

from nasmvt.data.loader import Parts
from nasmvt.training import Trainer, TrainingConfig
from nasmvt.training import processes as module
from nasmvt.training.checkpoint import Checkpoints
from nasmvt.training.metrics import MetricsLog
from nasmvt.training.processes import ALONE, _buckets, restarted, started_together
from tests.training.group import together
from tests.training.toy import Toy, ToyLoader


def test_alone_nothing_is_exchanged():
    tensor = torch.ones(3)
    ALONE.add_up([tensor])
    ALONE.average([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert ALONE.gather("x") == ["x"]
    assert [ALONE.agreed(flag) for flag in (True, False)] == [True, False]
    assert ALONE.parts(3) == Parts(of=3, wanted=range(3))


def exchange(processes):
    module._BUCKET = 40  # bytes: the first tensor is larger, the others go two by two
    own = processes.rank + 1
    sums = [torch.full((3, 4), 1.0 * own).t(), *(torch.full((5,), 10.0 * own + place) for place in range(3))]
    processes.add_up(sums)
    mean = processes.mean(torch.tensor([1.0 * own]))
    flags = [processes.agreed(processes.rank == 1 and call == 1) for call in range(4)]
    return [tensor.tolist() for tensor in sums], mean.item(), processes.gather(own), flags, processes.parts(2)


def test_two_exchange_sums_means_values_and_flags():
    results = together(2, exchange)
    for rank, (sums, mean, values, flags, parts) in enumerate(results):
        assert sums == [[[3.0] * 3] * 4, *([30.0 + 2 * place] * 5 for place in range(3))]
        assert mean == 1.5
        assert values == [1, 2]
        assert flags == [False, False, True, False]  # known one call later
        assert parts == Parts(of=4, wanted=range(2 * rank, 2 * rank + 2))


def test_buckets_hold_all_tensors_in_order(monkeypatch):
    monkeypatch.setattr(module, "_BUCKET", 40)
    tensors = [torch.zeros(size) for size in (20, 5, 5, 5)]
    assert [[len(tensor) for tensor in bucket] for bucket in _buckets(tensors)] == [[20], [5, 5], [5]]
    assert list(_buckets([])) == []


class Normed(Toy):
    """A toy with running statistics."""

    def __init__(self, space) -> None:
        super().__init__(space)
        self.norm = nn.BatchNorm1d(4, momentum=0.5)

    def forward(self, arch, task, batch):
        self.norm(batch.images)
        return super().forward(arch, task, batch)


def statistics(processes, space, folder):
    torch.manual_seed(0)
    toy = Normed(space)
    config = TrainingConfig(steps=1, warmup_steps=0)
    loaders = {"cls": ToyLoader()}
    metrics, checkpoints = MetricsLog(folder / "metrics.jsonl"), Checkpoints(folder / "checkpoint.pt")
    more = {"metrics": metrics, "checkpoints": checkpoints, "device": torch.device("cpu"), "processes": processes}
    Trainer(toy, loaders, config, seed=0, **more).run()
    return toy.norm.running_mean


def test_running_statistics_are_averaged(space, tmp_path):
    first, second = together(2, statistics, space, tmp_path)
    images = next(ToyLoader().batches(0)).images
    assert torch.equal(first, second)
    torch.testing.assert_close(first, images.mean(0) / 2)  # momentum 0.5 from 0; two halves of equal size


def test_what_started_the_process_is_read_from_its_environment(monkeypatch):
    assert not started_together()
    assert not restarted()
    for key, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(key, value)
    assert started_together()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not started_together()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted()


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "nasmvt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nasmvt ")
