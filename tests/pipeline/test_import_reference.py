"""Three single-task checkpoints of the authors become one model that computes what each of them did."""

import json

import pytest
import torch

import nasmvt
from nasmvt.errors import UserError
from nasmvt.pipeline.import_reference import Checkpoint, import_reference, plan_import, read_checkpoint
from nasmvt.pipeline.merging import merge
from nasmvt.space import load_space
from nasmvt.tasks.build import build_skeleton
from tests.pipeline.reference_files import TASKS, expected_total, key_list, make_state, write

SPEC = {  # millions: adaptive once, rest of the trunk once, what each task has of its own (released code)
    "tiny": (7.243620, 1.201338, [0.166680, 0.217000, 1.612368, 3.362688, 3.145528, 0.526968, 1.867968, 34.936854]),
    "small": (23.245824, 2.371104, [0.230226, 0.385000, 2.800338, 10.622976, 4.528000, 0.865698, 5.901312, 36.485142]),
    "base": (56.404992, 4.127040, [0.313056, 0.577000, 4.168224, 23.897088, 6.937408, 1.308384, 13.275648, 38.254614]),
}
DETECTOR = 1.184015 + 15.618449 + 2.643280
AUXILIARY = {"tiny": 0.536726, "small": 0.923798, "base": 1.366166}


def checkpoint(state, name="memory"):
    return Checkpoint(
        path=name,
        prefix="model.",
        state={key.removeprefix("model."): tensor for key, tensor in state.items()},
        foreign={},
    )


def spare_columns(size, tasks=TASKS):
    """Elements of the relative tables that no head of the published arch uses."""
    heads = load_space(f"vit_mvt_{size}").archs["published"]["num_heads"]
    return sum(
        entry["shape"][0] * (entry["shape"][1] - heads[int(entry["key"].split(".")[2])])
        for task in tasks
        for entry in key_list(size, task)
        if entry["key"].endswith("bias_table")
    )


@pytest.mark.parametrize("size", SPEC)
@pytest.mark.parametrize(("score", "copies"), [(0.9, 1), (0.5, 3)])
def test_totals_are_those_of_the_paper_spec(size, score, copies):
    space = load_space(f"vit_mvt_{size}")
    plan = plan_import({task: checkpoint(make_state(size, task, score)) for task in TASKS}, space)
    adaptive, trunk, own = SPEC[size]
    millions = copies * adaptive + trunk + sum(own) + DETECTOR + AUXILIARY[size]
    parameters = plan.report["parameters"]
    assert plan.arch == space.named("published")
    assert parameters["merged"]["total"] == round(millions * 1e6) - spare_columns(size)
    assert parameters["networks alone"]["total"] == round(
        (3 * (adaptive + trunk) + sum(own) + DETECTOR + AUXILIARY[size]) * 1e6
    ) - spare_columns(size)
    for task in TASKS:
        params = [e for e in key_list(size, task) if e["kind"] == "param"]
        assert parameters["in the files"][task] == sum(torch.Size(e["shape"]).numel() for e in params)
    assert plan.report["merged"]["shared by score, but different"] == []


@pytest.mark.parametrize(
    ("size", "tasks"), [*((size, TASKS) for size in SPEC), ("tiny", ("cls", "seg")), ("tiny", ("det", "seg"))]
)
def test_totals_with_learned_scores_and_of_two_tasks(size, tasks):
    states = {task: make_state(size, task) for task in tasks}
    plan = plan_import({task: checkpoint(state) for task, state in states.items()}, load_space(f"vit_mvt_{size}"))
    heads = list(plan.arch["num_heads"])
    assert plan.report["parameters"]["merged"]["total"] == expected_total(size, states, heads)
    shared = {layer: got for layer, got in plan.sharing.layers if got}
    assert set(shared.values()) == {tasks}
    for block in range(len(heads)):
        score = states[tasks[0]][f"model.backbone.layers.{block}.fc2.score"].item()
        assert plan.sharing.tasks(f"backbone.blocks.{block}.fc2") == (tasks if score > 0.5 else ())
        assert f"backbone.blocks.{block}.norm1" in shared


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The three Small checkpoints as files, and the folder that they were imported to."""
    folder = tmp_path_factory.mktemp("small")
    files = {task: write(make_state("small", task), folder / f"{task}.pth") for task in TASKS}
    import_reference(files, load_space("vit_mvt_small"), folder / "model")
    yield files, folder / "model"
    (folder / "model" / "model.safetensors").unlink()  # half a gigabyte


def test_the_merged_model_computes_what_the_single_ones_did(small):
    files, folder = small
    loaded = nasmvt.load(folder)
    plan = plan_import({task: read_checkpoint(path) for task, path in files.items()}, load_space("vit_mvt_small"))
    images = torch.randint(0, 256, (1, 3, 96, 80), dtype=torch.uint8)
    for name in TASKS:
        network = build_skeleton(plan.space, plan.tasks[name], plan.arch)
        alone = {key: tensor.contiguous() for key, tensor in plan.tensors[name].items()}
        network.load_state_dict(alone, assign=True)
        model = loaded.task(name)
        if name == "det":  # random scores are low, and a thousand regions take long
            for head in (model.network.head, network.head):
                head.score_threshold = 0.0
                head.rpn._post_nms_top_n = {"testing": 50, "training": 50}
        with torch.inference_mode():
            got, want = model(images), network.eval()(images)
        if name == "det":
            assert len(want[0]["boxes"]) == 100
            assert all(torch.equal(got[0][key], want[0][key]) for key in want[0])
        else:
            assert torch.isfinite(want).all()
            assert torch.equal(got, want)


def test_shared_layers_are_one_tensor_and_statistics_are_not(small):
    _, folder = small
    loaded = nasmvt.load(folder)
    cls, det = (dict(loaded.model.task(name).named_parameters()) for name in ("cls", "det"))
    sharing = json.loads((folder / "config.json").read_text())["sharing"]
    layer = next(name for name, tasks in sharing.items() if name.endswith("fc1") and "blocks" in name and tasks)
    assert cls[f"{layer}.weight"] is det[f"{layer}.weight"]
    own = next(name for name, tasks in sharing.items() if not tasks)
    assert not torch.equal(cls[f"{own}.weight"], det[f"{own}.weight"])
    tensors = loaded.model.tensors()
    assert not any(key.startswith("shared.") and "running" in key for key in tensors)
    assert {"cls.backbone.stem.1.running_mean", "det.backbone.stem.1.running_mean"} <= tensors.keys()
    assert "shared.backbone.norm.weight" in tensors


def test_the_folder_says_what_it_is(small):
    files, folder = small
    assert sorted(path.name for path in folder.iterdir()) == [
        ".gitignore",
        "README.md",
        "config.json",
        "import.json",
        "local.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    report = json.loads((folder / "import.json").read_text())
    assert report["files"] == {task: path.name for task, path in files.items()}
    assert report["parameters"]["merged"] == config["parameters"]
    assert config["metrics"] == {"split": "none"}
    assert config["space"]["fixed"]["norm_eps"] == 1e-5
    assert config["space"]["fixed"]["position_size"] == {
        "classification": [224, 224],
        "detection": [1328, 1328],
        "segmentation": [512, 512],
    }
    sizes = {name: task["preprocessing"]["canvas"] for name, task in config["tasks"].items()}
    assert sizes == {"cls": [224, 224], "det": [800, 1280], "seg": [512, 512]}
    head = config["tasks"]["det"]["config"]["head"]
    assert (head["anchor_rounding"], head["roi_aligned"], head["clip_shrinking"]) == (False, True, True)
    assert config["tasks"]["cls"]["config"]["data"]["classes"][0] == "tench"
    assert config["tasks"]["det"]["config"]["data"]["classes"][79] == "toothbrush"
    assert config["tasks"]["seg"]["config"]["data"]["classes"][149] == "class 149"
    card = (folder / "README.md").read_text()
    assert "not measured" in card
    assert "import-reference" in card
    assert "Supernet training" not in card


def test_what_is_left_out_is_named_by_rule(small):
    _, folder = small
    unused = json.loads((folder / "import.json").read_text())["unused"]
    for task in TASKS:
        named = {key for keys in unused[task].values() for key in keys}
        assert "model.backbone.layers.0.attn.relative_position_index" in named
        assert sum(key.endswith(".score") for key in named) == 56 + (task == "cls")
        weights = {key for key in named if key.endswith("weight")}
        assert len(weights) == 56 + (task == "cls")
        columns = unused[task]["columns of relative position tables beyond a block's heads"]
        assert sum(columns.values()) == spare_columns("small", [task])


def test_tensors_that_differ_against_their_score_stay_apart_and_are_named():
    states = {task: make_state("tiny", task, 0.9) for task in TASKS}
    key = "model.backbone.layers.4.attn.proj.bias"
    states["det"][key] = states["det"][key] + 1e-3
    norm = "model.backbone.layers.1.ln2.weight"
    for shift, state in enumerate(states.values()):
        state[norm] = state[norm] + shift
    states["seg"]["model.backbone.layers.2.fc2.score"] = torch.tensor([0.3])
    plan = plan_import({task: checkpoint(state) for task, state in states.items()}, load_space("vit_mvt_tiny"))
    layers = plan.report["layers"]
    assert plan.report["merged"]["shared by score, but different"] == ["backbone.blocks.4.attn.proj"]
    assert layers["backbone.blocks.4.attn.proj"] == {
        "shared": ["cls", "seg"],
        "specific by score": [],
        "differs": ["det"],
    }
    assert layers["backbone.blocks.2.fc2"]["shared"] == ["cls", "det"]
    assert layers["backbone.blocks.2.fc2"]["specific by score"] == ["seg"]
    assert plan.sharing.tasks("backbone.blocks.1.norm2") == ()
    model = plan.model()
    assert not torch.equal(*(model.task(t).get_parameter("backbone.blocks.4.attn.proj.bias") for t in ("cls", "det")))


def test_the_reading_of_qkv_is_chosen_by_name():
    states = {task: checkpoint(make_state("tiny", task, 0.2)) for task in ("cls", "seg")}
    space = load_space("vit_mvt_tiny")
    own, published = (plan_import(states, space, qkv=qkv).tensors for qkv in ("specific", "reference"))
    weight, bias = (f"backbone.blocks.0.attn.qkv.{leaf}" for leaf in ("weight", "bias"))
    assert not torch.equal(own["cls"][weight], own["seg"][weight])
    assert torch.equal(published["cls"][weight], published["seg"][weight])
    assert torch.equal(own["cls"][bias], published["cls"][bias])
    report = plan_import(states, space, qkv="reference").report["unused"]["cls"]
    named = {key for keys in report.values() for key in keys}
    assert {"model.backbone.layers.0.attn.qkv.specific_weight", "model.backbone.layers.0.attn.qkv.bias"} <= named


def test_a_layer_is_merged_only_whole():
    one = {"backbone.a.weight": torch.ones(2), "backbone.a.bias": torch.zeros(2), "head.a.weight": torch.ones(2)}
    two = {**one, "backbone.a.bias": torch.ones(2)}
    merged = merge({"x": one, "y": two, "z": dict(one)}, {})
    assert merged.sharing.to_dict() == {"backbone.a": ["x", "z"]}
    assert merge({"x": one, "y": two}, {}).sharing.to_dict() == {}
    assert merge({"x": one, "z": one}, {"x": {"backbone.a": False}}).sharing.to_dict() == {"backbone.a": []}


def test_half_precision_files_become_single():
    states = {task: make_state("tiny", task, 0.9) for task in ("cls", "seg")}
    half = {t: {k: v.half() if v.is_floating_point() else v for k, v in s.items()} for t, s in states.items()}
    plan = plan_import({task: checkpoint(state) for task, state in half.items()}, load_space("vit_mvt_tiny"))
    kinds = {tensor.dtype for tensors in plan.tensors.values() for tensor in tensors.values()}
    assert kinds == {torch.float32, torch.int64}


def test_class_names_may_be_given_and_roots_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ADE20K", str(tmp_path))
    names = [f"thing {i}" for i in range(150)]
    states = {task: checkpoint(make_state("tiny", task)) for task in ("cls", "seg")}
    plan = plan_import(states, load_space("vit_mvt_tiny"), classes={"seg": names})
    assert plan.tasks["seg"].info.classes == plan.tasks["seg"].config.data.classes == tuple(names)
    assert plan.tasks["seg"].config.data.root == tmp_path
    with pytest.raises(UserError, match="150 classes, but 2 different names"):
        plan_import(states, load_space("vit_mvt_tiny"), classes={"seg": ["a", "b"]})


def test_another_family_is_refused(tmp_path):
    other = load_space("vit_mvt_tiny").model_copy(update={"family": "other"})
    with pytest.raises(UserError, match="family vit_mvt"):
        import_reference({"cls": tmp_path / "a", "det": tmp_path / "b"}, other, tmp_path / "out")
