"""`nasmvt profile` of spaces, runs and exported models."""

import json
import shutil

import pytest
import torch
import yaml

from nasmvt.pipeline.profile_subject import find_subject
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.supernet import load_supernet
from nasmvt.training.checkpoint import Checkpoint


def asked(nasmvt, *words: object) -> dict:
    return json.loads(nasmvt("profile", *words, "--json", "-"))


def test_the_reference_is_printed_to_the_last_parameter(nasmvt):
    text = nasmvt("profile", "vit_mvt_small", "--arch", "published", "--pattern", "vit_mvt_reference")
    assert text.startswith("space vit_mvt_small, arch published, counted by the pattern vit_mvt_reference: depth=14 ")
    for figure in ("107,805,162", "154,296,810", "106,881,364", "153,373,012", "23,245,824", "534.13"):
        assert figure in text


def test_table_and_json_say_the_same(nasmvt, finished, tmp_path):
    shown = nasmvt("profile", finished, "--json", "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == asked(nasmvt, finished)
    numbers = [count["total"] for count in written["parameters"].values()]
    numbers += [size for part in written["parts"] for size in part["tasks"].values()]
    assert all(f"{number:,}" in shown for number in numbers)
    assert "written: out.json" in shown


def test_a_run_and_its_export_count_as_the_search_did(nasmvt, finished):
    best = yaml.safe_load((finished / "search" / "best.yaml").read_text())
    for source in (finished, finished / "export"):
        found = asked(nasmvt, source)
        assert found["parameters"]["learned"] == best["parameters"]
        assert found["arch"]["values"] == best["arch"]
        assert list(found["parameters"]) == ["learned", "all", "none"]
    assert json.loads((finished / "export" / "config.json").read_text())["parameters"] == best["parameters"]


def test_an_export_is_profiled_without_its_weights(nasmvt, run):
    (run / "export" / "model.safetensors").unlink()
    assert asked(nasmvt, run / "export", "--sharing", "learned")["kind"] == "export"


def test_a_run_before_its_search_goes_by_its_scores(nasmvt, run):
    shutil.rmtree(run / "search")
    checkpoint = Checkpoint.load(run / "supernet" / "checkpoint.pt")
    keys = [key for key in checkpoint.weights if key.startswith("scores.")]
    for place, key in enumerate(keys):
        checkpoint.weights[key] = torch.full_like(checkpoint.weights[key], place % 2)
    checkpoint.save(run / "supernet" / "checkpoint.pt")
    subject = find_subject(str(run))
    assert subject.arch == subject.space.largest
    assert subject.learned == load_supernet(Run.open(run), torch.device("cpu")).sharing()
    for path in (run / "supernet").glob("checkpoint*.pt"):
        path.unlink()
    assert list(asked(nasmvt, run)["parameters"]) == ["all", "none"]
    assert "there are no scores" in nasmvt.refused("profile", run, "--sharing", "learned")


def test_other_archs_of_a_run(nasmvt, finished):
    found = [asked(nasmvt, finished, "--arch", name) for name in ("smallest", "largest", "best")]
    assert [item["arch"]["name"] for item in found] == ["smallest", "largest", "best"]
    assert found[0]["parameters"]["all"]["total"] < found[1]["parameters"]["all"]["total"]


def test_latency(nasmvt, finished, tmp_path):
    words = (finished, "--arch", "smallest", "--latency", "--device", "cpu", "--json", "out.json")
    assert " ms " in nasmvt("profile", *words)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["device"] == "cpu"
    assert found["milliseconds"].keys() == {"cls", "det", "seg"}


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["vit_mvt_smal"], "did you mean 'vit_mvt_small'"),
        (["vit_mvt_small", "--arch", "publishd"], "did you mean 'published'"),
        (["vit_mvt_small", "--pattern", "vit_mvt_referenc"], "there is no pattern 'vit_mvt_referenc'; did you mean"),
        (["vit_mvt_small", "--sharing", "learned"], "pass --sharing all or none"),
        (["vit_mvt_small", "--latency", "--device", "gpu"], "--device must name a device"),
        (["absent/folder"], "there is no folder absent/folder"),
        (["absent.yaml"], "there is no file absent.yaml"),
    ],
)
def test_mistakes_are_one_sentence(nasmvt, words, rule):
    assert rule in nasmvt.refused("profile", *words)


def test_options_of_a_space_do_not_go_with_a_folder(nasmvt, finished):
    assert "leave them out" in nasmvt.refused("profile", finished, "--experiment", "shapes")
    assert "holds one arch" in nasmvt.refused("profile", finished / "export", "--arch", "smallest")
    assert "neither a run" in nasmvt.refused("profile", finished / "search")
