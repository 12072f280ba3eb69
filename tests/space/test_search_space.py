"""Archs are canonical, whatever made them; the space's counts are exact."""

from collections import Counter

import numpy as np
import pytest

from nasmvt.config import parse
from nasmvt.errors import UserError
from nasmvt.space import Arch, SearchSpace, load_space, shipped_spaces

SMALL = {
    "name": "small",
    "family": "any",
    "choices": {
        "depth": [1, 3],
        "width": [8, 16],
        "heads": {"options": [1, 2, 4], "per": "depth"},
        "ratio": {"options": [1, 1.5], "per": "depth"},
    },
}


@pytest.fixture
def small() -> SearchSpace:
    return parse(SearchSpace, SMALL, "small.yaml")


def everything(space: SearchSpace) -> set[Arch]:
    rng = np.random.default_rng(0)
    return {space.sample(rng) for _ in range(6000)}


def test_size_is_the_number_of_archs(small):
    assert small.size == 2 * (3 * 2) ** 1 + 2 * (3 * 2) ** 3
    shallow = parse(SearchSpace, {**SMALL, "choices": {**SMALL["choices"], "depth": [1, 2]}}, "x")
    assert len(everything(shallow)) == shallow.size == 2 * 6 + 2 * 36


def test_sampling_is_uniform_in_every_choice(small):
    rng = np.random.default_rng(1)
    drawn = [small.sample(rng) for _ in range(4000)]
    for name, options in (("depth", 2), ("width", 2)):
        counts = Counter(arch[name] for arch in drawn)
        assert len(counts) == options
        assert all(abs(n / 4000 - 1 / options) < 0.04 for n in counts.values())
    heads = Counter(value for arch in drawn for value in arch["heads"])
    assert all(abs(n / heads.total() - 1 / 3) < 0.04 for n in heads.values())


@pytest.mark.parametrize("name", shipped_spaces())
def test_round_trips(name):
    space = load_space(name)
    rng = np.random.default_rng(2)
    for _ in range(20):
        arch = space.sample(rng)
        assert space.arch(arch.to_dict()) == arch
        assert hash(space.arch(arch.to_dict())) == hash(arch)
        indices = space.encode(arch)
        assert len(indices) == len(space.slots)
        assert space.decode(indices) == arch
        assert space.arch(arch.to_dict()).id == arch.id


def test_blocks_beyond_the_depth_do_not_exist(small):
    arch = small.arch({"depth": 1, "width": 8, "heads": [2], "ratio": [1.0]})
    assert arch["heads"] == (2,)
    assert small.encode(arch).tolist() == [0, 0, 1, -1, -1, 0, -1, -1]
    padded = small.encode(arch)
    padded[padded == -1] = 1
    assert small.decode(padded) == arch


@pytest.mark.parametrize("name", ["vit_mvt_tiny", "vit_mvt_small", "vit_mvt_base"])
def test_published_archs(name):
    arch = load_space(name).named("published")
    assert len(arch["num_heads"]) == len(arch["mlp_ratio"]) == arch["depth"]


def test_crossover_takes_every_gene_from_a_parent_and_never_fails(small):
    rng = np.random.default_rng(3)
    depths = set()
    for _ in range(300):
        first, second = small.sample(rng), small.sample(rng)
        child = small.crossover(first, second, rng)
        depths.add((first["depth"], second["depth"], child["depth"]))
        assert child["depth"] in (first["depth"], second["depth"])
        assert child["width"] in (first["width"], second["width"])
        for block in range(child["depth"]):
            parents = {p["heads"][block] for p in (first, second) if block < p["depth"]}
            assert child["heads"][block] in parents
    assert {(1, 3, 1), (1, 3, 3)} <= depths


def test_mutation_respects_its_probabilities(small):
    rng = np.random.default_rng(4)
    arch = small.largest
    assert all(small.mutate(arch, rng, 0, 0) == arch for _ in range(50))
    changed = [small.mutate(arch, rng, 0.3, 0) for _ in range(2000)]
    rate = np.mean([a != b for child in changed for a, b in zip(child["heads"], arch["heads"], strict=True)])
    assert abs(rate - 0.3 * 2 / 3) < 0.03  # a redraw may give the old option again
    grown = [small.mutate(small.smallest, rng, 0, 1) for _ in range(200)]
    assert {child["depth"] for child in grown} == {1, 3}
    assert {child["heads"][2] for child in grown if child["depth"] == 3} == {1, 2, 4}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 1, "width": 8, "heads": [1]}, "lacks the choice 'ratio'"),
        ({"depth": 1, "width": 9, "heads": [1], "ratio": [1]}, "width=9, but small offers 8, 16"),
        ({"depth": 3, "width": 8, "heads": [1], "ratio": [1, 1, 1]}, "must give 3 values for 'heads'"),
        ({"depht": 3}, "did you mean 'depth'"),
        ({"depth": "x", "width": 8, "heads": [1], "ratio": [1]}, "depth='x'"),
    ],
)
def test_wrong_archs_are_refused_in_a_sentence(small, values, message):
    with pytest.raises(UserError, match=message):
        small.arch(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choises": {}}, "unknown key 'choises' in s.yaml; did you mean 'choices'"),
        ({"choices": {"depth": [2, 1]}}, "ascending"),
        ({"choices": {"depth": [1, 1]}}, "must differ"),
        ({"choices": {"depth": []}}, "at least one option"),
        ({"choices": {"a": {"options": [1], "per": "depth"}}}, "made per 'depth'"),
        ({"choices": {"a": {"option": [1]}}}, "did you mean 'options'"),
        ({"archs": {"mine": {"depth": 7}}}, "arch 'mine'"),
    ],
)
def test_wrong_files_are_refused_in_a_sentence(change, message):
    with pytest.raises(UserError, match=message):
        parse(SearchSpace, {**SMALL, **change}, "s.yaml")


def test_unknown_space_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'vit_mvt_nano'"):
        load_space("vit_mvt_nanno")


def test_covering_archs_hold_every_option(small) -> None:
    archs = small.covering
    assert (archs[0], archs[-1]) == (small.smallest, small.largest)
    assert len(archs) == 3
    assert {heads for arch in archs for heads in arch["heads"]} == {1, 2, 4}
