"""What a folder says of itself: enough to build and feed the networks, nothing of the machine that wrote it."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import nasmvt
from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.export import save
from nasmvt.pipeline.evaluate import data_configs
from nasmvt.tasks.config import TaskConfig
from nasmvt.tasks.task import Task
from tests.conftest import CLASSES

FORMAT_1 = Path(__file__).parent / "data" / "format1.zip"
"""Written by nasmvt 0.1.0 (f314a62), with the outputs of its networks for images that a seed gives."""


@pytest.fixture
def model(supernet, space):
    """A model whose segmentation was made for files."""
    model = supernet.materialize(space.smallest).eval()
    task = model.tasks["seg"]
    data = {"format": "ade20k", "root": "/secret/place/ade", "image_size": [32, 32], "mean": [0.5, 0.4, 0.3]}
    data |= {"labels": {0: CLASSES[0], 7: CLASSES[1], 9: CLASSES[2]}, "val_split": "test", "limit": 3}
    config = parse(TaskConfig, {**task.config.model_dump(), "data": data, "eval_batch_size": 3}, "seg")
    model.tasks["seg"] = Task(name="seg", config=config, info=task.info)
    return model


@pytest.fixture
def folder(model, tmp_path):
    save(model, tmp_path / "model", metrics={"cls": {"top1": 50.0}}, split="search", seed=3)
    return tmp_path / "model"


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_task_is_described_by_its_own_words(model, folder):
    content = config_of(folder)
    assert content["format"] == 3
    task = content["tasks"]["seg"]
    assert task["kind"] == "segmentation"
    assert task["classes"] == list(CLASSES)
    assert task["config"]["head"] == model.tasks["seg"].config.head.model_dump(mode="json")
    assert task["preprocessing"] == {
        "placement": "fit",
        "test": {"type": "fit"},
        "canvas": [32, 32],
        "position": "top left",
        "padding": "mean",
        "interpolation": "bilinear",
        "antialias": True,
        "orientation": "upright",
        "channels": "RGB",
        "divisor": 255,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.229, 0.224, 0.225],
    }
    assert not {"root", "workers", "augmentation", "batch_size", "loss_weight"} & {
        *task,
        *task["config"],
        *task["config"]["data"],
    }


def test_a_loaded_model_has_the_settings_that_were_saved(model, folder):
    before, after = model.tasks["seg"].config, nasmvt.load(folder).model.tasks["seg"].config
    assert after.head == before.head
    assert after.eval_batch_size == 3
    assert after.data == before.data.model_copy(update={"root": None})


def test_no_absolute_path_is_published(folder):
    texts = [path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors"]
    assert len(texts) == 4
    assert not any("/secret" in text.replace("../secret", "") for text in texts)
    published = (folder / ".gitignore").read_text().split()
    assert published == ["local.json"]
    assert "secret" not in (folder / "config.json").read_text() + (folder / "README.md").read_text()


def test_the_data_are_found_where_the_folder_was_written_and_asked_for_elsewhere(model, folder, tmp_path, monkeypatch):
    assert data_configs(nasmvt.load(folder), ())["seg"].data == model.tasks["seg"].config.data
    monkeypatch.chdir(folder)
    assert data_configs(nasmvt.load("."), ())["seg"].data.root == Path("/secret/place/ade")
    (folder / "local.json").unlink()
    with pytest.raises(UserError, match=r"where the data of 'seg' are: pass --set tasks\.seg\.data\.root=FOLDER"):
        data_configs(nasmvt.load(folder), ())
    assert data_configs(nasmvt.load(folder), ["tasks.seg.data.root=x"])["seg"].data.root == Path("x")


def test_data_behind_a_link_are_found(model, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    save(model, tmp_path / "link" / "model", metrics={}, split="none", seed=0)
    loaded = nasmvt.load(tmp_path / "link" / "model")
    assert loaded.roots == {"seg": Path(os.path.realpath("/secret/place/ade"))}


@pytest.mark.parametrize("content", ["{", "[]", '{"roots": 3}', '{"roots": {"seg": 1}}'])
def test_a_damaged_local_file_is_named(folder, content):
    (folder / "local.json").write_text(content)
    with pytest.raises(UserError, match=r"local\.json can't be read: delete it"):
        nasmvt.load(folder)


def test_files_that_are_not_ours_do_no_harm(folder):
    (folder / "notes.txt").write_text("x")
    (folder / "more").mkdir()
    assert nasmvt.load(folder).tasks == ("cls", "det", "seg")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["tasks"]["seg"]["preprocessing"].update(placement="warp"),
            "unknown placement of test images 'warp'",
        ),
        (lambda c: c["tasks"]["seg"]["preprocessing"].update(mean=[1, 2]), "preprocessing.mean"),
        (lambda c: c["tasks"]["seg"].update(classes=3), "tasks.seg.classes"),
        (lambda c: c["tasks"]["seg"]["config"]["head"].update(type="upernett"), "did you mean 'upernet'"),
        (lambda c: c["tasks"].update(seg=3), "tasks.seg"),
        (lambda c: c["tasks"]["seg"]["config"].pop("head"), "'tasks.seg.config.head' is missing"),
    ],
)
def test_a_config_that_was_edited_wrongly_is_refused_by_name(folder, change, words):
    content = config_of(folder)
    change(content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        nasmvt.load(folder)
    assert words in str(refused.value)


# -- format 1 -------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(FORMAT_1) as archive:
        archive.extractall(tmp_path / "old")
    return tmp_path / "old"


def test_a_folder_of_format_1_gives_the_outputs_that_it_gave(old):
    loaded, expected = nasmvt.load(old), load_file(old / "outputs.safetensors")
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 32, 40), generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        outputs = {name: loaded.task(name)(images) for name in loaded.tasks}
    found = {"cls": outputs["cls"], "seg": outputs["seg"]}
    found |= {f"det.{key}": value for key, value in outputs["det"][0].items()}
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)  # the processor may be another one


def test_a_folder_of_format_1_says_what_today_says(old):
    loaded = nasmvt.load(old)
    assert loaded.config["format"] == 3
    assert loaded.config["metrics"] == {"split": "search", "cls": {"top1": 50.0}}
    configs = data_configs(loaded, ())
    assert configs["cls"].data.root == Path("/data/of/someone")
    assert (configs["cls"].data.format, configs["cls"].data.val_split) == ("imagefolder", "validation")
    assert configs["seg"].head.norm == "batch"
    assert configs["seg"].data.mean == (0.5, 0.4, 0.3)
    assert configs["det"].data.image_size == (32, 40)


def test_a_damaged_folder_of_format_1_is_refused_by_name(old):
    content = config_of(old)
    del content["tasks"]["cls"]["config"]["kind"]
    (old / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"'tasks\.cls\.config\.kind' is missing in .*config\.json"):
        nasmvt.load(old)


# -- format 2 -------------------------------------------------------------------------------------


def as_format_2(content):
    """Return a config.json as nasmvt 0.2.0 and 0.3.0 wrote it: the settings of a task beside its classes."""
    for task in content["tasks"].values():
        task.update(task.pop("config"))
    return {**content, "format": 2}


def test_a_folder_of_format_2_has_the_settings_that_were_saved(model, folder):
    content = config_of(folder)
    expected = nasmvt.load(folder)
    (folder / "config.json").write_text(json.dumps(as_format_2(content)))
    loaded = nasmvt.load(folder)
    assert loaded.config == expected.config
    assert {n: t.config for n, t in loaded.model.tasks.items()} == {
        n: t.config for n, t in expected.model.tasks.items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("tasks"), "'tasks'"),
        (lambda c: c.update(tasks=[1]), "tasks"),
        (lambda c: c["tasks"].update(seg=3), "tasks.seg"),
        (lambda c: c["tasks"]["seg"].pop("head"), "'tasks.seg.config.head' is missing"),
    ],
)
def test_a_damaged_folder_of_format_2_is_refused_by_name(folder, change, words):
    content = as_format_2(config_of(folder))
    change(content)
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as refused:
        nasmvt.load(folder)
    assert words in str(refused.value)


def test_the_card_has_the_metadata_of_the_hub(model, tmp_path):
    save(model, tmp_path / "model", metrics={"seg": {"miou": 12.345}}, split="search", seed=3)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.library_name == "nasmvt"
    assert card.data.pipeline_tag == "image-classification"  # of the first task
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("miou", 12.35, "search")
