"""What can be wrong with an experiment or a search space: one sentence, and nothing is written."""

from pathlib import Path

import pytest

from tests.cli.conftest import write_experiment


def setting(*keys, value):
    """Return a change that sets a nested key."""

    def change(values):
        for key in keys[:-1]:
            values = values.setdefault(key, {})
        values[keys[-1]] = value

    return change


CASES = {
    "key": (setting("trainig", value={}), ["'trainig'", "tiny.yaml", "did you mean 'training'?"]),
    "nested key": (setting("training", "stps", value=3), ["'training.stps'", "did you mean 'steps'?"]),
    "key of a head": (setting("tasks", "det", "head", "widht", value=3), ["'tasks.det.head.widht'", "'width'"]),
    "key of the space": (setting("space", "choises", value={}), ["'space.choises'", "'choices'"]),
    "fixed size": (setting("space", "fixed", "head_dmi", value=8), ["'head_dmi'", "'head_dim'"]),
    "choice": (setting("space", "choices", "embed_dmi", value=[8]), ["embed_dmi", "embed_dim"]),
    "family": (setting("space", "family", value="vit_mtv"), ["'vit_mtv'", "did you mean 'vit_mvt'?"]),
    "space": (setting("space", value="vit_mvt_nanno"), ["did you mean 'vit_mvt_nano'?"]),
    "space file": (setting("space", value="gone.yaml"), ["there is no file gone.yaml"]),
    "word for a number": (setting("training", "steps", value="many"), ["'training.steps'", "integer", "'many'"]),
    "number for a mapping": (setting("training", value=3), ["'training'", "must hold keys of its own", "3"]),
    "empty task": (setting("tasks", "cls", value=None), ["'tasks.cls'", "nothing"]),
    "kind": (setting("tasks", "cls", "kind", value="clasification"), ["'tasks.cls.kind'", "'classification'"]),
    "no kind": (setting("tasks", "cls", value={}), ["'tasks.cls.kind' is missing"]),
    "no tasks": (setting("tasks", value={}), ["at least one task"]),
    "union": (setting("supernet", "score_start", value="x"), ["'supernet.score_start'"]),
    "infinity": (setting("training", "lr", value=float("inf")), ["'training.lr'", "finite"]),
    "optimizer": (setting("training", "optimizer", value="adamww"), ["'adamww'", "did you mean 'adamw'?"]),
    "augmentation": (setting("tasks", "cls", "data", "augmentation", value={"auto_augment": "x"}), ["auto_augment"]),
    "search split": (setting("tasks", "cls", "data", "search_fraction", value=0.001), ["no search split is left"]),
    "training split": (setting("tasks", "cls", "data", "search_fraction", value=0.999), ["no training images"]),
    "no root": (setting("tasks", "cls", "data", "format", value="imagefolder"), ["set root"]),
    "missing root": (
        setting("tasks", "cls", "data", value={"format": "imagefolder", "root": "gone"}),
        ["there is no folder", "gone"],
    ),
    "root of nobody": (
        setting("tasks", "cls", "data", value={"format": "imagefolder", "root": "~nobody-at-all/x"}),
        ["there is no folder", "~nobody-at-all"],
    ),
    "root is a file": (
        setting("tasks", "cls", "data", value={"format": "imagefolder", "root": "tiny.yaml"}),
        ["there is no folder"],
    ),
    "image smaller than a patch": (setting("space", "fixed", "patch_size", value=64), ["32 x 32", "64"]),
    "odd patch": (setting("space", "fixed", "patch_size", value=7), ["patch_size = 7", "multiple of 2"]),
    "zero": (setting("space", "fixed", "window_size", value=0), ["window_size = 0", "greater than"]),
    "word for a size": (setting("space", "fixed", "head_dim", value="8"), ["head_dim = 8", "integer"]),
    "depth": (setting("space", "choices", "depth", value=[3, 5]), ["depth = 3", "greater than or equal to 4"]),
    "choice of no task": (setting("choices", "head.dett.width", value=[8, 16]), ["'dett'", "did you mean 'det'?"]),
    "choice of no width": (setting("choices", "head.det.nms", value=[1, 2]), ["head.det.nms", "head.det.width"]),
    "odd resolution": (setting("choices", "resolution.cls", value=[20, 32]), ["multiples of 8 pixels", "20"]),
    "choice of the backbone": (setting("choices", "embed_dim2", value=[8]), ["'embed_dim2'", "the space's file"]),
    "rounding": (setting("space", "round_to", value=32), ["options 16 and 24 of embed_dim", "round_to 32"]),
    "rounded heads": (setting("space", "fixed", value={"head_dim": 12, "round_to": 8}), ["head_dim 12", "round_to 8"]),
    "word in a choice": (setting("space", "choices", "embed_dim", value=["a", "b"]), ["embed_dim = a", "integer"]),
    "choice made once": (setting("space", "choices", "num_heads", value=[1, 2]), ["num_heads = 1", "tuple"]),
    "fraction": (setting("space", "choices", "embed_dim", value=[16, 16.5, 24]), ["embed_dim = 16.5", "integer"]),
}


@pytest.mark.parametrize(("change", "words"), CASES.values(), ids=CASES.keys())
def test_it_is_refused_and_nothing_is_written(nasmvt, change, words):
    write_experiment(change)
    sentence = nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")
    assert [word for word in words if word not in sentence] == [], sentence
    assert [path.name for path in Path().iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("name", ["keys", "train", "shared", "split", "a b", ""])
def test_a_task_may_not_have_a_name_that_means_something_else(nasmvt, name):
    write_experiment(lambda values: values.update(tasks={name: values["tasks"]["cls"]}))
    assert f"unlike {name!r}" in nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"- 1\n- 2\n", "mapping"),
        (b"training: [", "not valid YAML"),
        (b"space: vit_mvt_nano\nname: 2024-01-01", "'tasks' is missing"),
        (b"name: a\xff\0", "not text in utf-8"),
        (b"tasks:\n  cls: {}\n  cls: {}\n", "'cls' in line 2 and in line 3"),
        (b"space: " + b"[" * 2000, "too deeply"),
        (b"#" * 1_000_001, "1,000,000 characters at most"),
        (b"name: !!python/object:os.system x", "not valid YAML"),
        (b"space: vit_mvt_nano", "'tasks' is missing"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(nasmvt, content, words):
    Path("bad.yaml").write_bytes(content)
    sentence = nasmvt.refused("train-supernet", "bad.yaml", "--out", "out")
    assert words in sentence
    assert "bad.yaml" in sentence
    assert not Path("out").exists()


def test_a_missing_experiment_is_refused_with_the_nearest(nasmvt):
    write_experiment()
    assert "did you mean 'shapes'?" in nasmvt.refused("train-supernet", "shape")
    assert "did you mean 'tiny.yaml'?" in nasmvt.refused("train-supernet", "tinny.yaml")
    assert "there is no file" in nasmvt.refused("train-supernet", "nothing/like/it.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.steps", "key=value"),
        ("=3", "key=value"),
        ("training..steps=3", "key=value"),
        ("training.steps=[", "not valid YAML"),
        ("training.steps=2024-13-45", "'training.steps' in tiny.yaml and --set: it should be a valid integer"),
        ("training.steps=2.5", "it should be a valid integer"),
        ("training.steps=true", "'training.steps' in tiny.yaml and --set: it should be a number, not true or false"),
        ("training={steps: 1, steps: 2}", "--set training has 'steps' in line 1 and in line 1"),
        ("tasks.cls.data.train_split=2017", "write it in quotes: '2017'"),
        ("tasks.cls.data.root=2017", "write it in quotes: '2017'"),
        ("training.lr=.nan", "finite"),
        ("training.lr=1e999", "finite"),
        ("training.steps.more=3", "no keys of its own"),
        ("trainin.steps=3", "did you mean 'training'?"),
        ("tasks.cls.batch_size=none", "'tasks.cls.batch_size' in tiny.yaml and --set"),
        ("tasks=3", "'tasks'"),
    ],
)
def test_a_bad_set_is_refused(nasmvt, change, words):
    write_experiment()
    assert words in nasmvt.refused("train-supernet", "tiny.yaml", "--out", "out", "--set", change)
    assert not Path("out").exists()


@pytest.mark.parametrize("device", ["gpu", "meta", "", "cuda:77"])
def test_an_unknown_device_is_refused(nasmvt, device):
    assert "--device must name a device" in nasmvt.refused("train-supernet", "--device", device, "--out", "out")
    assert not Path("out").exists()


def test_a_run_directory_that_cannot_be_made_is_refused(nasmvt):
    write_experiment()
    assert "can't be used" in nasmvt.refused("train-supernet", "tiny.yaml", "--out", "tiny.yaml/out")
    assert "tiny.yaml exists" in nasmvt.refused("train-supernet", "tiny.yaml", "--out", "tiny.yaml")
