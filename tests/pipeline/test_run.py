"""A run directory is one process's, has the data that it began with, and is read through one door."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from nasmvt.config import parse
from nasmvt.cost import ParameterCount
from nasmvt.errors import UserError
from nasmvt.pipeline.archs import ArchFile
from nasmvt.pipeline.comparison import Compared
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.identity import SPLITS, TaskRecord
from nasmvt.pipeline.run import RUNS, Run, reserved
from nasmvt.space import Sharing
from tests.conftest import tiny_experiment


def draw(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(value).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Experiment:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            for number in range(8):
                draw(tmp_path / "data" / split / label / f"{number}.png", number)
    data = {"format": "imagefolder", "root": "data", "image_size": 32, "search_fraction": 0.25}
    tasks = {"cls": {"kind": "classification", "data": data, "batch_size": 2}}
    return parse(Experiment, tiny_experiment(tasks=tasks), "tiny")


@pytest.fixture
def run(experiment) -> Run:
    begun = Run(Path("r"), experiment, {n: TaskRecord.of(d, SPLITS) for n, d in open_data(experiment).items()})
    begun.write()
    return Run.open(Path("r"))


def edit(change) -> None:
    values = yaml.safe_load(Path("r/config.yaml").read_text())
    change(values)
    Path("r/config.yaml").write_text(yaml.safe_dump(values))


# -- reserving ------------------------------------------------------------------------------------


def test_runs_that_begin_in_one_second_have_directories_of_their_own(experiment):
    def begin(number):
        with reserved(None, experiment) as path:
            (path / "mine").write_text(str(number))
        return path

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(begin, range(16)))
    assert len(set(paths)) == 16
    assert [(path / "mine").read_text() for path in paths] == [str(number) for number in range(16)]
    assert {path.parent for path in paths} == {RUNS}


def test_a_directory_that_is_given_is_taken_once_and_gone_if_nothing_was_written(experiment):
    with reserved(Path("a/b/r"), experiment), pytest.raises(UserError, match="a/b/r exists: give another --out"):
        reserved(Path("a/b/r"), experiment).__enter__()
    assert not Path("a").exists()
    Path("kept").mkdir()
    with reserved(Path("kept/r"), experiment):
        pass
    assert list(Path("kept").iterdir()) == []


# -- data -----------------------------------------------------------------------------------------


def test_data_that_are_the_same_are_accepted_wherever_they_are(run):
    shutil.move("data", "moved")
    edit(lambda values: values["tasks"]["cls"]["data"].update(root="moved", workers=1, skip_unreadable=True))
    assert len(Run.open(run.path).open_data(SPLITS)["cls"].train) == 16
    assert run.records["cls"].splits["train"].images == 16


CHANGES = {
    "added": (lambda: draw(Path("data/train/cat/new.png"), 1), "train had 16 images and has 17"),
    "removed": (lambda: Path("data/train/cat/3.png").unlink(), "train had 16 images and has 15"),
    "renamed": (lambda: Path("data/train/cat/3.png").rename("data/train/cat/x.png"), "files of train have been"),
    "other": (lambda: Path("data/train/cat/3.png").write_bytes(b"x" * 99), "files of train have been"),
    "val": (lambda: Path("data/val/cat/3.png").unlink(), "val had 16 images and has 15"),
    "seed": (lambda: edit(lambda v: v.update(seed=7)), "the seed was 0 and is 7"),
    "division": (
        lambda: edit(lambda v: v["tasks"]["cls"]["data"].update(search_fraction=0.5)),
        "'data.search_fraction' was 0.25 and is 0.5",
    ),
    "mean": (
        lambda: edit(lambda v: v["tasks"]["cls"]["data"].update(mean=[0.5, 0.5, 0.5])),
        "'data.mean' was [0.485, 0.456, 0.406] and is [0.5, 0.5, 0.5]",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_data_that_changed_are_refused_by_name_unless_accepted(run, name):
    change, words = CHANGES[name]
    change()
    with pytest.raises(UserError, match="--accept-changed-data") as refused:
        Run.open(run.path).open_data(SPLITS)
    assert words in str(refused.value)
    if name == "other":
        draw(Path("data/train/cat/3.png"), 99)
    Run.open(run.path).open_data(SPLITS, accept_changed=True)
    Run.open(run.path).open_data(SPLITS)  # the run has these data now


@pytest.mark.parametrize("accept", [False, True])
def test_other_classes_are_always_refused(run, accept):
    Path("data/train/cat").rename("data/train/zebra")
    with pytest.raises(UserError, match=r"'cls' changed: zebra came and cat went; undo the change, or begin a new run"):
        run.open_data(accept_changed=accept)


def test_the_search_is_bound_to_the_training_images(run):
    before = run.train_identity
    draw(Path("data/train/cat/new.png"), 1)
    run.open_data(accept_changed=True)
    assert before["cls"]["images"] == 16
    assert run.train_identity["cls"]["images"] == 17
    assert before["cls"]["digest"] != run.train_identity["cls"]["digest"]


def test_a_run_of_the_first_version_compares_what_it_knows(run):
    Path("r/data.json").write_text('{"cls": {"kind": "classification", "classes": ["cat", "dog"], "has_masks": false}}')
    draw(Path("data/train/cat/new.png"), 1)
    old = Run.open(run.path)
    assert len(old.open_data(SPLITS)["cls"].train) == 17
    assert old.train_identity == {}
    Path("data/train/cat").rename("data/train/zebra")
    with pytest.raises(UserError, match="zebra came"):
        old.open_data()


# -- reading --------------------------------------------------------------------------------------


def test_an_arch_with_its_sharing_is_read_as_it_was_written(run):
    arch = run.experiment.space.largest
    layer = "backbone.blocks.0.fc1"
    ArchFile.of(arch, Sharing.of({layer: ("cls",)})).write(run.retrain_files("best").arch)
    read = run.retrained("best")
    assert read.read_arch(run.experiment.space, Path("x")) == arch
    assert read.read_sharing() == Sharing.of({layer: ("cls",)})
    assert set(yaml.safe_load(run.retrain_files("best").arch.read_text())) == {"arch", "sharing"}


def test_a_comparison_is_read_as_it_was_written(run):
    count = ParameterCount(shared=1, specific={"cls": 2}, heads={"cls": 3})
    found = [Compared("best", count, {"cls": {"top1": 12.5}}, 12.5, True)]
    with pytest.raises(UserError, match="run 'nasmvt compare' first"):
        run.comparison()
    run.write_comparison(found)
    assert run.comparison() == found
    Path("r/compare.json").write_text("[{")
    with pytest.raises(UserError, match=r"compare\.json is missing or damaged"):
        run.comparison()


def test_candidates_are_read_as_they_were_written_and_damage_is_named(run):
    with pytest.raises(UserError, match="run 'nasmvt search' first"):
        run.candidates()
    run.folder("search").mkdir()
    table = pd.DataFrame({"rank": [1, 2], "score": [2.5, 1.5], "num_heads": ["1 2", "2 2"]})
    path = run.folder("search") / "candidates.csv"
    table.to_csv(path, index=False)
    pd.testing.assert_frame_equal(run.candidates(), table)
    for content in (b"", b'a,b\n1,"2', b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"candidates\.csv is damaged"):
            run.candidates()


def test_metrics_leave_out_what_a_kill_cut_short(run):
    assert run.metrics("supernet") == []
    run.folder("supernet").mkdir()
    (run.folder("supernet") / "metrics.jsonl").write_bytes(b'{"step": 1}\n[3]\n\xd4{"st\n{"step": 2, "lo')
    assert run.metrics("supernet") == [{"step": 1}]


def test_figures_are_the_last_ones_and_damage_is_named(run):
    assert run.figures("best") == {}
    path = run.folder("retrain", "best") / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    lines = ['{"step": 1, "metrics": {"best": {"cls": {"top1": %s}}}}' % value for value in (1.5, 2.5)]  # noqa: UP031 (braces)
    path.write_text("\n".join(lines))
    assert run.figures("best") == {"cls": {"top1": 2.5}}
    for line in (
        '{"step": 1, "metrics": {"best": {"cls": {"top1": "x"}}}}',
        '{"step": 1, "metrics": {"best": 3}}',
        '{"step": 1, "metrics": {}}',
    ):
        path.write_text("\n".join([*lines, line]))
        with pytest.raises(UserError, match=r"metrics\.jsonl are damaged"):
            run.figures("best")


def test_a_place_that_is_no_text_goes_into_a_run_and_back(experiment, tmp_path):
    place = os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r")
    shutil.move("data", place)
    tasks = {"cls": {"kind": "classification", "batch_size": 2}}
    tasks["cls"]["data"] = {"format": "imagefolder", "root": place, "image_size": 32, "labels": {0: "a", 7: "b"}}
    odd = parse(Experiment, tiny_experiment(tasks=tasks), "tiny")
    records = {name: TaskRecord.of(data, SPLITS) for name, data in open_data(odd).items()}
    Run(Path("odd"), odd, records).write()
    read = Run.open(Path("odd"))
    assert read.experiment == odd
    assert read.records == records
    read.open_data(SPLITS)


@pytest.mark.parametrize(("size", "value"), [("patch_size", "eight"), ("head_dim", None), ("width", 8)])
def test_fixed_sizes_that_the_family_cannot_build_are_refused_when_a_run_is_opened(run, size, value):
    edit(lambda values: values["space"]["fixed"].update({size: value}))
    with pytest.raises(UserError, match=size):
        Run.open(run.path)
