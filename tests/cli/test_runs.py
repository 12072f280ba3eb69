"""Steps out of order, damaged and foreign files: one sentence each, and what is there stays as it is."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from nasmvt.cli.main import app
from tests.cli.conftest import write_experiment


def edit(run: Path, change) -> None:
    """Change a run's config.yaml in place."""
    values = yaml.safe_load((run / "config.yaml").read_text())
    change(values)
    (run / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["search", "retrain", "export", "compare", "evaluate", "train-supernet --resume"])
def test_without_a_run_every_step_says_how_to_start(nasmvt, command):
    assert "start with 'nasmvt train-supernet'" in nasmvt.refused(*command.split())


def test_steps_out_of_order_name_the_one_that_is_missing(nasmvt, run):
    shutil.rmtree(run / "search")
    shutil.rmtree(run / "retrain")
    shutil.rmtree(run / "export")
    before = left(run)
    for command in ("retrain", "export", "compare"):
        assert "run 'nasmvt search' first" in nasmvt.refused(command, run)
    assert "is not an exported model" in nasmvt.refused("evaluate", run)
    assert "leave --resume out" in nasmvt.refused("retrain", run, "--arch", "smallest", "--resume")
    for path in (run / "supernet").glob("checkpoint*.pt"):
        path.unlink()
    assert "there is no checkpoint" in nasmvt.refused("search", run)
    assert left(run) == [name for name in before if not name.startswith("supernet/checkpoint")]


def test_what_exists_is_not_written_over(nasmvt, run):
    write_experiment()
    before = left(run)
    assert "exists: give another --out" in nasmvt.refused("train-supernet", "tiny.yaml", "--out", run)
    assert "exists: pass --resume" in nasmvt.refused("retrain", run)
    assert "exists: give another --out" in nasmvt.refused("export", run)
    assert "exists: give another --out" in nasmvt.refused("export", run, "--out", "tiny.yaml")
    assert "belongs to another search (budget" in nasmvt.refused("search", run, "--budget", "151K")
    assert left(run) == before


def test_a_folder_that_is_no_run_is_refused(nasmvt, tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        for command in ("search", "retrain", "export", "compare"):
            assert "is not a run directory" in nasmvt.refused(command, folder)
        assert "is not a run directory" in nasmvt.refused("train-supernet", "--resume", "--out", folder)


@pytest.mark.parametrize("words", [["tiny.yaml"], ["--set", "training.steps=9"], ["--seed", "3"]])
def test_resume_takes_the_run_as_it_is(nasmvt, run, words):
    sentence = nasmvt.refused("train-supernet", "--resume", "--out", run, *words)
    assert "leave out the experiment, changes of its settings and the seed" in sentence


def test_a_run_can_be_moved_and_its_commands_be_copied_from_the_screen(nasmvt, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shutil.rmtree(run / "export")
    printed = nasmvt("export", run)
    assert f"exported: {run}/export  (next: nasmvt evaluate '{run}/export')" in printed.splitlines()
    assert f"written: {run}/export/evaluation.json" in nasmvt("evaluate", run / "export").splitlines()


# -- what a user types ----------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["12Q", "-3M", "0", "abc", "", "0.5", "1M5"])
def test_a_budget_that_is_no_number_of_parameters_is_refused(nasmvt, run, budget):
    assert f"not {budget!r}" in nasmvt.refused("search", run, "--budget", budget)


def test_a_budget_below_the_smallest_network_names_its_total(nasmvt, run):
    total = json.loads((run / "export" / "config.json").read_text())["parameters"]["total"]
    sentence = nasmvt.refused("search", run, "--budget", "90K", "--out", "elsewhere")
    smallest = int(sentence.partition(" in total")[0].rpartition(" ")[2].replace(",", ""))
    assert 90_000 < smallest <= total
    assert not Path("elsewhere").exists()


def test_a_budget_above_the_largest_network_does_not_bind(nasmvt, run):
    printed = nasmvt("search", run, "--budget", "1G", "--out", "my search")
    assert "the bound of 1,000,000,000 parameters in all does not bind" in printed
    assert f"(next: nasmvt retrain '{run}' --arch 'my search/best.yaml')" in printed


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--algorithm", "evolutoin"], "did you mean 'evolution'? (known: "),
        (["--workers", "-1"], "--workers takes a number such as 4, or a range such as 2..8, not '-1'"),
        (["--device", "tpu"], "--device must name a device"),
        (["--out", "tiny.yaml/x"], "can't be used"),
    ],
)
def test_a_bad_option_of_the_search_is_refused(nasmvt, run, words, hint):
    write_experiment()
    assert hint in nasmvt.refused("search", run, *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file my.yaml"),
        ("[1]", "mapping"),
        ("arch: 3", "'arch'"),
        ("{arch: {depth: 4}}", "lacks the choice 'embed_dim'"),
        ("depth: 9", "offers 4, 5"),
        ("{arch: {depth: 4, embed_dim: 16, num_heads: [1, 1], mlp_ratio: 2}}", "must give 4 values"),
        ("{arch: {}, sharing: 3}", "'sharing'"),
    ],
)
def test_a_bad_arch_file_is_refused(nasmvt, run, content, words):
    if content is not None:
        Path("my.yaml").write_text(content)
    assert words in nasmvt.refused("retrain", run, "--arch", "my.yaml")
    assert left(run / "retrain")[0] == "best"
    assert not (run / "retrain" / "my").exists()


def test_an_arch_file_names_its_retrained_model(nasmvt, run):
    arch = json.loads((run / "export" / "config.json").read_text())["arch"]
    Path("my.yaml").write_text(yaml.safe_dump(arch))
    nasmvt("retrain", run, "--arch", "my.yaml", "--from-scratch")
    nasmvt("export", run, "--arch", "my.yaml", "--out", "by file")
    nasmvt("export", run, "--arch", "my", "--out", "by name")
    first, second = (load_file(Path(folder, "model.safetensors")) for folder in ("by file", "by name"))
    assert all(torch.equal(first[key], second[key]) for key in first | second)


def test_an_unknown_arch_is_refused_with_the_nearest(nasmvt, run):
    for command in ("retrain", "export"):
        words = [command, run, "--arch", "smalest"]
        assert "did you mean 'smallest'?" in nasmvt.refused(*words, *(["--out", "x"] if command == "export" else []))
    assert not Path("x").exists()


# -- damaged and foreign files --------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign"])
def test_a_damaged_checkpoint_is_refused(nasmvt, run, damage):
    paths = list((run / "supernet").glob("checkpoint*.pt"))
    for path in paths:
        content = path.read_bytes()
        if damage == "foreign":
            torch.save({"format": 1, "model": {}}, path)
        else:
            path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello world"}[damage])
    damaged = [path.read_bytes() for path in paths]
    for words in (["search", run], ["train-supernet", "--resume", "--out", run]):
        assert ".pt is no" in nasmvt.refused(*words)
    assert [path.read_bytes() for path in paths] == damaged


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["space"]["choices"]["embed_dim"].update(options=[16, 32]), "belongs to the space 'tiny'"),
        (lambda v: v["tasks"]["seg"]["head"].update(channels=24), "written for task 'seg' with head"),
        (lambda v: v["tasks"].pop("det"), "began with the tasks cls, det, seg"),
        (lambda v: v["supernet"].update(granularity="layer_task"), "does not fit this run"),
        (lambda v: v["training"].update(steps=60), "ended at step 6 of 60"),
    ],
)
def test_a_checkpoint_of_another_space_or_tasks_is_refused(nasmvt, run, change, words):
    edit(run, change)
    assert words in nasmvt.refused("search", run)


def test_a_checkpoint_of_another_arch_or_optimizer_is_refused(nasmvt, run):
    edit(run, lambda values: values["training"].update(optimizer="sgd", steps=9))
    assert "but 'sgd' keeps momentum_buffer" in nasmvt.refused("train-supernet", "--resume", "--out", run)
    shutil.copy(run / "supernet" / "checkpoint.pt", run / "retrain" / "best" / "checkpoint.pt")
    assert "does not fit this run" in nasmvt.refused("export", run, "--out", "x")
    assert not Path("x").exists()


def test_retraining_another_arch_of_the_same_name_is_refused(nasmvt, run):
    before = (run / "retrain" / "best" / "arch.yaml").read_text()
    best = yaml.safe_load((run / "search" / "best.yaml").read_text())
    best["arch"]["embed_dim"] = 40 - best["arch"]["embed_dim"]
    (run / "search" / "best.yaml").write_text(yaml.safe_dump(best))
    assert "is not the arch that 'best' now means" in nasmvt.refused("retrain", run, "--resume")
    assert (run / "retrain" / "best" / "arch.yaml").read_text() == before


def test_an_unfinished_retraining_is_not_exported(nasmvt, run):
    edit(run, lambda values: values["retrain"].update(steps=5))
    assert "ended at step 3 of 5" in nasmvt.refused("export", run, "--out", "x")
    nasmvt("retrain", run, "--resume")
    nasmvt("export", run, "--out", "x")


@pytest.mark.parametrize("content", [None, "{", '{"cls": {"kind": "x"}}'])
def test_a_damaged_run_directory_is_refused(nasmvt, run, content):
    (run / "data.json").unlink()
    if content is not None:
        (run / "data.json").write_text(content)
    assert "data.json is missing or damaged" in nasmvt.refused("search", run)


@pytest.mark.parametrize("line", ["xx", "[1]", "{}"])
def test_a_damaged_journal_is_refused(nasmvt, run, line):
    path = run / "search" / "journal.jsonl"
    path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
    assert "line 2 of" in nasmvt.refused("search", run, "--budget", "150K")


@pytest.mark.parametrize("key", ["format", "space", "arch", "sharing", "tasks", "parameters", "seed"])
def test_an_exported_folder_whose_config_lacks_something_is_refused(nasmvt, run, key):
    path = run / "export" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    assert "config.json" in nasmvt.refused("evaluate", run / "export")


@pytest.mark.parametrize("content", [None, b"abc", b""])
def test_damaged_weights_are_refused(nasmvt, run, content):
    path = run / "export" / "model.safetensors"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert "model.safetensors can't be read" in nasmvt.refused("evaluate", run / "export")


# -- evaluate and predict -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["tasks.clss.data.root=x"], "did you mean 'cls'?"),
        (["tasks=3"], "below tasks.<name>"),
        (["tasks.cls=3"], "must hold keys"),
        (["training.steps=3"], "below tasks.<name>"),
        (["tasks.cls.data.rot=x"], "did you mean 'root'?"),
        (["tasks.cls.data.classes=[a, b, c, d, e]"], "trained for circle"),
        (["tasks.cls.data.format=imagefolder", "tasks.cls.data.root=gone"], "there is no folder gone"),
    ],
)
def test_evaluating_on_data_that_is_missing_or_other_is_refused(nasmvt, run, changes, words):
    options = [word for change in changes for word in ("--set", change)]
    assert words in nasmvt.refused("evaluate", run / "export", *options)
    assert not (run / "export" / "evaluation.json").exists()


def test_networks_compute_in_the_precision_asked_for(nasmvt, run):
    exported = run / "export"
    figures = {}
    for precision in ("fp32", "bf16"):
        nasmvt("evaluate", exported, "--precision", precision, "--out", "figures.json")
        figures[precision] = json.loads(Path("figures.json").read_text())["metrics"]
    assert figures["bf16"].keys() == figures["fp32"].keys()
    probabilities = {}
    for precision in ("fp32", "bf16"):
        nasmvt("predict", exported, "--task", "cls", "--count", 1, "--precision", precision, "--out", precision)
        top = json.loads(Path(precision, "cls", "val-000.json").read_text())["top"]
        probabilities[precision] = {entry["class"]: entry["probability"] for entry in top}
    assert probabilities["bf16"] == pytest.approx(probabilities["fp32"], abs=0.01)
    assert probabilities["bf16"] != probabilities["fp32"]
    nasmvt("search", run, "--budget", "150K", "--precision", "bf16", "--out", "search")
    assert "belongs to another search (config.precision" in nasmvt.refused(
        *("search", run, "--budget", "150K", "--out", "search")
    )
    for command in (["evaluate", exported], ["predict", exported], ["search", run, "--out", "new"]):
        assert "'fp8'" in nasmvt.refused(*command, "--precision", "fp8")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["gone.png"], "there is no image or folder gone.png"),
        (["empty"], "there is no image among the paths"),
        (["notes.txt"], "notes.txt can't be decoded"),
        (["broken.png"], "broken.png can't be decoded"),
        (["one.png", "--task", "clss"], "did you mean 'cls'?"),
        (["one.png", "--out", "notes.txt"], "can't be used"),
    ],
)
def test_predicting_what_cannot_be_predicted_is_refused(nasmvt, run, words, hint):
    Path("empty").mkdir()
    Path("notes.txt").write_text("hello")
    Image.new("RGB", (37, 21)).save("one.png")
    Path("broken.png").write_bytes(Path("one.png").read_bytes()[:40])
    assert hint in nasmvt.refused("predict", run / "export", *words)
    assert not Path("predictions").exists()


def test_predicting_skips_broken_pictures_if_asked_and_keeps_namesakes_apart(nasmvt, run):
    Path("all").mkdir()
    for name in ("one.png", "one.jpg", "two.png"):
        Image.new("L", (37, 21)).save(f"all/{name}")
    Path("all/broken.png").write_bytes(Path("all/one.png").read_bytes()[:40])
    nasmvt("predict", run / "export", "all", "--task", "cls", "--skip-unreadable")
    drawn = sorted(path.name for path in Path("predictions/cls").glob("*.json"))
    assert drawn == ["all-one-jpg.json", "all-one-png.json", "two.json"]


# -- places that can't be written -----------------------------------------------------------------


@pytest.fixture
def no_new_files(monkeypatch):
    """Make `write_json` fail as on a read-only disk (root may write anywhere)."""

    def refuse(path, value):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    for module in ("nasmvt.files", "nasmvt.pipeline.run"):
        monkeypatch.setattr(f"{module}.write_json", refuse)


def test_a_place_that_cannot_be_written_costs_the_file_not_the_figures(run, no_new_files):
    for words in (["evaluate", run / "export"], ["compare", run]):
        result = CliRunner().invoke(app, list(map(str, words)))
        assert result.exit_code == 0, result.output
        assert "on val" in result.stdout
        assert "not written: " in result.stderr
        assert "(Read-only file system)" in result.stderr
    assert not (run / "export" / "evaluation.json").exists()
    result = CliRunner().invoke(app, ["evaluate", str(run / "export"), "--out", "asked.json"])
    assert result.exit_code == 2
    assert "on val" in result.stdout
    assert "asked.json can't be used (Read-only file system)" in result.stderr
