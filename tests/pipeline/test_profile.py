"""Accounting: the reference's figures to the last parameter, and the same count as everywhere else."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from nasmvt.config import parse
from nasmvt.cost.macs import count_macs
from nasmvt.cost.parameters import add_up, tensor_sizes
from nasmvt.errors import UserError
from nasmvt.pipeline.archs import find_arch
from nasmvt.pipeline.profile import Profile, effective_roles, profile, sharing_bounds
from nasmvt.pipeline.profile_subject import Subject, find_subject
from nasmvt.resources import shipped
from nasmvt.space import Role, Roles, load_space
from nasmvt.space.pattern import FOLDER, Pattern, load_pattern
from nasmvt.supernet import Supernet
from tests.conftest import tiny_experiment

ROOT = Path(__file__).parents[2]

# millions, counted on networks that the released code builds
PARAMETERS = {
    "tiny": {
        "adaptive": 7.243620,
        "rest of the trunk": 1.201338,
        "cls stem, position, tables": 0.166680,
        "cls head": 0.217000,
        "det stem, position, tables": 1.612368,
        "det residual convolutions": 3.362688,
        "det neck": 3.145528,
        "seg stem, position, tables": 0.526968,
        "seg neck": 1.867968,
        "seg upernet": 34.936854,
        "seg auxiliary": 0.536726,
    },
    "small": {
        "adaptive": 23.245824,
        "rest of the trunk": 2.371104,
        "cls stem, position, tables": 0.230226,
        "cls head": 0.385000,
        "det stem, position, tables": 2.800338,
        "det residual convolutions": 10.622976,
        "det neck": 4.528000,
        "seg stem, position, tables": 0.865698,
        "seg neck": 5.901312,
        "seg upernet": 36.485142,
        "seg auxiliary": 0.923798,
    },
    "base": {
        "adaptive": 56.404992,
        "rest of the trunk": 4.127040,
        "cls stem, position, tables": 0.313056,
        "cls head": 0.577000,
        "det stem, position, tables": 4.168224,
        "det residual convolutions": 23.897088,
        "det neck": 6.937408,
        "seg stem, position, tables": 1.308384,
        "seg neck": 13.275648,
        "seg upernet": 38.254614,
        "seg auxiliary": 1.366166,
    },
}
EVERY_SIZE = {"det rpn": 1.184015, "det box": 15.618449, "det mask": 2.643280}

# The same section: all shared without and with the auxiliary head, none shared without and with it.
TOTALS = {
    "tiny": (73.73, 74.26, 88.21, 88.75),
    "small": (106.88, 107.81, 153.37, 154.30),
    "base": (168.71, 170.08, 281.52, 282.89),
}

# The same section: classification; segmentation's backbone and whole; detection's backbone and whole.
GMACS = {
    "tiny": (2.89, 20.18, 296.85, 75.00, 417.07),
    "small": (6.34, 41.79, 340.92, 178.73, 534.13),
    "base": (13.34, 85.77, 424.39, 385.83, 763.10),
}


@pytest.fixture(scope="module", params=["tiny", "small", "base"])
def published(request) -> tuple[str, Profile]:
    subject = find_subject(f"vit_mvt_{request.param}", "published")
    return request.param, profile(subject, pattern=load_pattern("vit_mvt_reference"))


def rows(found: Profile) -> dict[str, int]:
    """The rows of the spec's table, from the parts of a profile."""

    def count(task: str, *starts: str, role: Role = Role.SPECIFIC) -> int:
        return sum(
            part.tasks.get(task, 0)
            for part in found.parts
            if part.role is role and any(f"{part.name}.".startswith(f"{start}.") for start in starts)
        )

    own = ("backbone.stem", "backbone.pos_embed", "backbone.blocks")
    trunk = [{count(task, "backbone", role=role) for task in found.macs} for role in (Role.ADAPTIVE, Role.SHARED)]
    assert [len(sizes) for sizes in trunk] == [1, 1]
    return {
        "adaptive": trunk[0].pop(),
        "rest of the trunk": trunk[1].pop(),
        "cls head": count("cls", "head"),
        **{f"{task} stem, position, tables": count(task, *own) for task in found.macs},
        "det residual convolutions": count("det", "backbone.stage_convs"),
        "det neck": count("det", "neck"),
        "det rpn": count("det", "head.rpn"),
        "det box": count("det", "head.roi_heads.box_head", "head.roi_heads.box_predictor"),
        "det mask": count("det", "head.roi_heads.mask_head", "head.roi_heads.mask_predictor"),
        "seg neck": count("seg", "neck"),
        "seg upernet": count("seg", "head"),
        "seg auxiliary": count("seg", "auxiliary"),
    }


def test_every_row_of_the_reference_table_to_the_last_parameter(published):
    size, found = published
    assert rows(found) == {row: round(1e6 * value) for row, value in {**PARAMETERS[size], **EVERY_SIZE}.items()}


def test_totals_of_the_reference(published):
    size, found = published
    row = {name: round(1e6 * value) for name, value in {**PARAMETERS[size], **EVERY_SIZE}.items()}
    counts = found.parameters
    assert list(counts) == ["all", "none"]
    assert counts["all"].total == sum(row.values())
    assert counts["none"].total == sum(row.values()) + 2 * row["adaptive"]
    assert found.training_only == {"seg": row["seg auxiliary"]}
    unused = row["seg auxiliary"]
    exact = [total for count in counts.values() for total in (count.total - unused, count.total)]
    assert tuple(round(total / 1e6, 2) for total in exact) == TOTALS[size]


def test_multiply_accumulates_of_the_reference(published):
    size, found = published
    whole = {task: sum(macs.values()) for task, macs in found.macs.items()}
    backbone = {task: macs["backbone"] for task, macs in found.macs.items()}
    measured = (whole["cls"], backbone["seg"], whole["seg"], backbone["det"], whole["det"])
    for count, expected in zip(measured, GMACS[size], strict=True):
        assert count / 1e9 == pytest.approx(expected, rel=0.01)


def test_without_the_pattern_only_tables_and_the_position_of_the_detector_are_smaller(published):
    size, reference = published
    found = profile(find_subject(f"vit_mvt_{size}"))
    assert found.macs == reference.macs
    arch, before, after = found.subject.arch, rows_by_name(reference), rows_by_name(found)
    unused = sum(max(found.subject.space.choices["num_heads"].options) - heads for heads in arch["num_heads"])
    assert {key: before[key] - after[key] for key in before if before[key] != after[key]} == {
        ("cls", "backbone.blocks"): 27 * 27 * unused,
        ("det", "backbone.blocks"): 27 * 27 * unused,
        ("seg", "backbone.blocks"): 63 * 63 * unused,
        ("det", "backbone.pos_embed"): arch["embed_dim"] * (83 * 83 - 50 * 80),
    }
    page = (ROOT / "docs" / "accounting.md").read_text(encoding="utf-8")
    for item in (reference, found):
        assert all(f"{count.total:,}" in page for count in item.parameters.values())


def rows_by_name(found: Profile) -> dict[tuple[str, str], int]:
    sizes: dict[tuple[str, str], int] = {}
    for part in found.parts:
        for task, size in part.tasks.items():
            sizes[task, part.name] = sizes.get((task, part.name), 0) + size
    return sizes


def tiny(space, tasks, arch=None, learned=None) -> Subject:
    return Subject(
        kind="space",
        source="tiny",
        space=space,
        tasks=tasks,
        arch_name="largest",
        arch=arch or space.largest,
        learned=learned,
    )


def test_the_same_count_as_the_supernets(space, tasks, supernet):
    found = profile(tiny(space, tasks, learned=supernet.sharing()))
    sizes = {name: tensor_sizes(space, task, space.largest) for name, task in tasks.items()}
    every, none = supernet.sharing("all"), supernet.sharing("none")
    assert found.parameters == {
        "learned": add_up(sizes, supernet.sharing()),
        "all": add_up(sizes, every),
        "none": add_up(sizes, none),
    }
    assert found.parameters["all"].total < found.parameters["learned"].total < found.parameters["none"].total


def test_bounds_are_the_supernets(space, tasks):
    roles = {
        "backbone.blocks.*.lpu": "shared",
        "backbone.blocks.*.fc1": "adaptive",
        "backbone.stage_convs.**": "shared",
    }
    space = space.model_copy(update={"roles": {name: Role(role) for name, role in roles.items()}})
    sizes = {name: tensor_sizes(space, task, space.largest) for name, task in tasks.items()}
    supernet = Supernet(space, tasks)
    bounds = supernet.sharing("all"), supernet.sharing("none")
    assert sharing_bounds(sizes, effective_roles(sizes, Roles.of(roles))) == bounds


def test_parts_add_up_to_each_network(space, tasks):
    found = profile(tiny(space, tasks))
    for name, task in tasks.items():
        expected = sum(tensor_sizes(space, task, space.largest).values())
        assert sum(part.tasks.get(name, 0) for part in found.parts) == expected
        assert sum(found.macs[name].values()) == sum(count_macs(space, task, space.largest).values())
    none = found.parameters["none"]
    assert none.total == sum(sum(part.tasks.values()) for part in found.parts)


def test_parts_stand_in_the_order_of_a_network(space, tasks):
    tops = [part.name.partition(".")[0] for part in profile(tiny(space, tasks)).parts]
    assert list(dict.fromkeys(tops)) == ["backbone", "neck", "head", "auxiliary"]
    assert tops == sorted(tops, key=["backbone", "neck", "head", "auxiliary"].index)


def test_one_sharing_can_be_asked_for(space, tasks):
    assert list(profile(tiny(space, tasks), sharing="none").parameters) == ["none"]
    with pytest.raises(UserError, match="there are no scores: pass --sharing all or none"):
        profile(tiny(space, tasks), sharing="learned")


def test_a_layer_of_two_sizes_can_not_be_shared():
    with pytest.raises(UserError, match=r"one size in all tasks, but head\.fc\.weight has a 4, b 6 elements"):
        effective_roles({"a": {"head.fc.weight": 4}, "b": {"head.fc.weight": 6}}, Roles.of({"head.**": "shared"}))


def test_latency_is_measured_of_every_task(space, tasks):
    found = profile(tiny(space, tasks, arch=space.smallest), device=torch.device("cpu"))
    assert found.milliseconds.keys() == tasks.keys()
    assert all(0 < value < math.inf for value in found.milliseconds.values())
    assert found.to_dict()["device"] == "cpu"


# -- patterns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped(FOLDER))
def test_shipped_patterns_load(name):
    assert load_pattern(name).name == name


def test_patterns_are_no_search_spaces():
    assert not set(shipped(FOLDER)) & set(shipped("search_spaces"))


def test_a_pattern_changes_roles_sizes_and_fixed_sizes(space, tasks):
    values = {
        "name": "mine",
        "roles": {"backbone.norm": "shared"},
        "unsliced": ["backbone.blocks.*.attn.relative_bias"],
        "fixed": {"stem_width": 4},
    }
    found = profile(tiny(space, tasks, arch=space.smallest), pattern=parse(Pattern, values, "x"))
    parts = {(part.name, part.role): part.tasks for part in found.parts}
    assert parts["backbone.norm", Role.SHARED] == dict.fromkeys(tasks, 2 * 16)
    assert parts["backbone.stem", Role.SPECIFIC]["cls"] == 3 * 4 * 49 + 2 * 4 * 4 * 9 + 3 * 2 * 4
    plain = profile(tiny(space, tasks, arch=space.smallest))
    unsliced = {(part.name, part.role): part.tasks for part in plain.parts}
    blocks = sum(tasks["cls"] for (name, _), tasks in parts.items() if name == "backbone.blocks")
    before = sum(tasks["cls"] for (name, _), tasks in unsliced.items() if name == "backbone.blocks")
    assert blocks - before == 4 * 7 * 7  # 4 blocks, tables of 7 x 7 rows, one more head


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        (
            {"unsliced": ["backbone.blocks.*.attn.relative_bais"]},
            r"did you mean 'backbone.blocks..\.attn\.relative_bias'",
        ),
        ({"roles": {"backbone.nrom": "shared"}}, "did you mean 'backbone.norm'"),
        ({"fixed": {"steam_width": 8}}, "did you mean 'stem_width'"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(space, tasks, values, rule):
    with pytest.raises(UserError, match=rule):
        profile(tiny(space, tasks), pattern=parse(Pattern, {"name": "mine", **values}, "x"))


def test_with_a_pattern_nothing_is_learned(space, tasks, supernet):
    subject = tiny(space, tasks, learned=supernet.sharing())
    pattern = parse(Pattern, {"name": "mine"}, "x")
    assert list(profile(subject, pattern=pattern).parameters) == ["all", "none"]
    with pytest.raises(UserError, match="the pattern mine has other roles"):
        profile(subject, sharing="learned", pattern=pattern)


# -- subjects -------------------------------------------------------------------------------------


def test_archs_of_a_space(tmp_path):
    space = load_space("vit_mvt_small")
    assert find_arch(space, "published") == (space.named("published"), None)
    assert find_arch(space, "smallest")[0] == space.smallest
    file = tmp_path / "best.yaml"
    sharing = {"backbone.blocks.0.fc1": ["cls", "det"]}
    file.write_text(yaml.safe_dump({"arch": space.largest.to_dict(), "sharing": sharing, "score": 1.0}))
    arch, learned = find_arch(space, str(file))
    assert arch == space.largest
    assert learned.to_dict() == sharing
    with pytest.raises(UserError, match="did you mean 'largest'"):
        find_arch(space, "larges")
    with pytest.raises(UserError, match="there is no arch 'best'"):
        find_arch(space, "best")


def test_a_space_is_profiled_with_its_published_arch_or_else_the_largest():
    assert find_subject("vit_mvt_base").arch_name == "published"
    nano = find_subject("vit_mvt_nano", experiment="shapes")
    assert (nano.arch_name, nano.arch) == ("largest", nano.space.largest)
    assert {name: len(task.info.classes) for name, task in nano.tasks.items()} == {"cls": 5, "det": 5, "seg": 6}


def test_class_counts():
    tasks = find_subject("vit_mvt_tiny", classes=["det=3", "cls=7"]).tasks
    assert {name: len(task.info.classes) for name, task in tasks.items()} == {"cls": 7, "det": 3, "seg": 150}
    assert tasks["det"].info.has_masks


def test_settings_of_the_experiment():
    subject = find_subject("vit_mvt_tiny", changes=["tasks.det.head.masks=false", "tasks.cls.data.image_size=96"])
    found = profile(subject)
    assert not any("mask" in part.name for part in found.parts)
    assert found.to_dict()["tasks"]["cls"]["image_size"] == [96, 96]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"source": "vit_mvt_smal"}, "did you mean 'vit_mvt_small'"),
        ({"source": "runs/none"}, "there is no folder runs/none"),
        ({"source": "vit_mvt_small", "classes": ["dte=3"]}, "did you mean 'det'"),
        ({"source": "vit_mvt_small", "classes": ["det=0"]}, "takes TASK=N such as cls=100"),
        ({"source": "vit_mvt_small", "changes": ["space=vit_mvt_tiny"]}, "--set can't change it"),
        ({"source": "vit_mvt_small", "experiment": "shape"}, "did you mean 'shapes'"),
    ],
)
def test_what_can_not_be_meant_is_refused(options, rule):
    with pytest.raises(UserError, match=rule):
        find_subject(**options)


def test_sharing_of_other_tasks_is_refused(tmp_path):
    space = load_space("vit_mvt_tiny")
    file = tmp_path / "best.yaml"
    file.write_text(yaml.safe_dump({"arch": space.largest.to_dict(), "sharing": {"a.b": ["cls", "pose"]}}))
    with pytest.raises(UserError, match="the tasks cls, pose, but vit_mvt has cls, det, seg"):
        find_subject("vit_mvt_tiny", str(file))


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="neither a run"):
        find_subject(str(tmp_path))


def test_a_space_and_an_experiment_of_the_users(tmp_path):
    values = tiny_experiment()
    file, own = tmp_path / "tiny.yaml", tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    own.write_text(yaml.safe_dump({key: value for key, value in values["space"].items() if key != "name"}))
    subject = find_subject(str(own), experiment=str(file))
    assert subject.space.name == "mine"
    assert subject.tasks["seg"].info.classes[0] == "background"
    assert profile(subject).parameters["all"].total > 0
