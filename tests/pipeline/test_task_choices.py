"""Resolutions, necks and heads that a space chooses: trained, searched, retrained, exported, shown; resumed exactly."""

import json
from contextlib import nullcontext
from fractions import Fraction

import pytest
import torch
import yaml
from PIL import Image

import nasmvt
from nasmvt.config import parse
from nasmvt.cost import Budget, Costs, count_macs
from nasmvt.data.loader import WHOLE, TrainLoader
from nasmvt.errors import UserError
from nasmvt.pipeline.compare import compare
from nasmvt.pipeline.datasets import open_data
from nasmvt.pipeline.evaluate import data_configs, data_of, evaluate_on_val
from nasmvt.pipeline.experiment import Experiment
from nasmvt.pipeline.export import export
from nasmvt.pipeline.latency import Effort, Networks, measure_table, setting_here
from nasmvt.pipeline.report import Report
from nasmvt.pipeline.retrain import choose_arch, load_retrained, retrain
from nasmvt.pipeline.run import Run
from nasmvt.pipeline.search import Searching
from nasmvt.pipeline.serve import Served
from nasmvt.pipeline.supernet import load_supernet, resume_supernet, train_supernet
from nasmvt.search.evaluator import EvaluationSetting, Evaluator
from nasmvt.supernet import Supernet
from nasmvt.training.sampling import make_sampling
from tests.conftest import TINY_SPACE, make_tasks, tiny_experiment
from tests.pipeline.test_main_job import CPU, Stop, StopAt, assert_equal, weights

CHOICES = {
    "resolution.cls": [16, 32],
    "resolution.det": [32, 48],
    "head.det.width": [8, 16],
    "neck.seg.width": [8, 16],
}


def experiment(**changes) -> Experiment:
    return parse(Experiment, tiny_experiment(choices=CHOICES, **changes), "tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A trained and searched run."""
    run = train_supernet(experiment(), out=tmp_path_factory.mktemp("runs") / "tiny", device=CPU)
    supernet = load_supernet(run, CPU)
    costs = Costs(supernet.space, supernet.tasks, supernet.sharing())
    smallest, largest = (costs.parameters(arch).total for arch in (costs.space.smallest, costs.space.largest))
    budget = Budget((smallest + largest) // 2, {"det": Fraction(7, 10)}).resolve(costs)
    Searching.of(run, budget, device="cpu").search()
    return run


def test_the_run_keeps_the_choices_of_the_experiment(run) -> None:
    space = run.experiment.space
    assert space.choices.keys() == {*TINY_SPACE["choices"], *CHOICES}
    assert parse(Experiment, yaml.safe_load((run.path / "config.yaml").read_text()), "config.yaml") == run.experiment


def test_a_resumed_training_equals_the_uninterrupted_one(run, tmp_path) -> None:
    with pytest.raises(Stop):
        train_supernet(experiment(), out=tmp_path / "run", device=CPU, listener=StopAt(5))
    crashed = Run.open(tmp_path / "run")
    resume_supernet(crashed, device=CPU)
    assert_equal(weights(crashed.folder("supernet")), weights(run.folder("supernet")))


def test_candidates_are_measured_in_their_resolution_and_their_exports_alike(run, tmp_path) -> None:
    """On the images of the search split: the figures of the search, of the exported folder, and of its own data."""
    supernet = load_supernet(run, CPU)
    data = run.open_data()
    images = {name: item.search_images() for name, item in data.items()}
    plain = {name: item.recalibration_images(8) for name, item in data.items()}
    setting = EvaluationSetting(sharing=supernet.sharing(), images=images, recalibration=plain)
    evaluate = Evaluator(supernet, setting)
    for number, arch in enumerate((run.experiment.space.smallest, run.experiment.space.largest)):
        model = supernet.materialize(arch)
        side = arch["resolution.cls"]
        assert model.tasks["cls"].nominal_size == (side, side)
        assert {batch.images.shape[2:] for batch in images["cls"].at((side, side))} == {(side, side)}
        figures = evaluate(arch, "det")
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"arch": arch.to_dict()}))
        folder = export(run, name=str(path), out=tmp_path / str(number))
        loaded = nasmvt.load(folder)
        size = loaded.model.tasks["det"].nominal_size
        assert size == (arch["resolution.det"],) * 2
        assert loaded.task("det").preprocess.placement.size == size
        assert loaded.config["metrics"]["det"] == figures


def test_the_winner_is_retrained_and_exported_as_it_was_chosen(run) -> None:
    supernet = load_supernet(run, CPU)
    best = choose_arch(run, "best", supernet.sharing())
    data = run.open_data(("train", "val"))
    retrain(run, best, supernet, data=data, device=CPU)
    model = load_retrained(run, "best")
    assert model.tasks["cls"].nominal_size == (best.arch["resolution.cls"],) * 2
    assert model.tasks["det"].config.head.width == best.arch["head.det.width"]
    folder = export(run)
    loaded = nasmvt.load(folder)
    configs = data_configs(loaded, [])
    assert configs["cls"].data.image_size == (best.arch["resolution.cls"],) * 2
    ours = evaluate_on_val(model, data_of(loaded, configs), CPU)
    assert evaluate_on_val(loaded.model, data_of(loaded, configs), CPU) == ours
    rows = compare(run, device=CPU, progress=lambda title: nullcontext())
    assert rows[-1].name == "best"
    assert {row.name for row in rows} >= {"smallest", "largest", "random"}
    Report(run).write()
    page = next(run.path.glob("*.html")).read_text()
    assert all(f">{name}<" in page for name in CHOICES)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own sockets and files
def test_workers_find_what_one_process_finds(run, tmp_path) -> None:
    pytest.importorskip("ray")
    for workers in (0, 2):
        Searching.of(run, Budget(), device="cpu", workers=workers, out=tmp_path / str(workers)).search()
    for name in ("candidates.csv", "best.yaml"):
        assert (tmp_path / "0" / name).read_text() == (tmp_path / "2" / name).read_text()


def test_predictions_are_made_in_the_chosen_resolution(run, tmp_path) -> None:
    """And are about the image as it was, whatever its size."""
    for number, size in enumerate([(50, 37), (20, 90)]):
        Image.new("RGB", size, "green").save(tmp_path / f"{number}.png")
    for number, arch in enumerate((run.experiment.space.smallest, run.experiment.space.largest)):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"arch": arch.to_dict()}))
        served = Served.open(export(run, name=str(path), out=tmp_path / f"model {number}"), device="cpu")
        read: dict[str, set[tuple[int, ...]]] = {name: set() for name in served.loaded.tasks}
        for name, seen in read.items():
            backbone = served.loaded.task(name).network.backbone
            backbone.register_forward_pre_hook(lambda module, given, seen=seen: seen.add(tuple(given[0].shape[2:])))
        drawn = served.predict(sorted(tmp_path.glob("*.png")), tmp_path / f"predictions {number}")
        sides = {"cls": arch["resolution.cls"], "det": arch["resolution.det"], "seg": 32}
        assert read == {name: {(side, side)} for name, side in sides.items()}
        assert [json.loads(one.with_suffix(".json").read_text()).get("size") for one in drawn[2:4]] == [
            [37, 50],
            [90, 20],
        ]


def test_images_of_a_step_are_those_of_its_arch() -> None:
    """Placed for their size from the files on, as for a training at that size alone."""
    data = open_data(experiment())["cls"]
    loader = data.train_loader()
    small = data.at((16, 16)).train_loader()
    for step, batch in zip(range(3), loader.batches(0, sizes=lambda step: [(16, 16)]), strict=False):
        assert torch.equal(batch.images, small.batch(step).images)
        assert torch.equal(torch.as_tensor(batch.targets), torch.as_tensor(small.batch(step).targets))
    both = loader.batches(4, sizes=lambda step: [(32, 32), (16, 16)])
    assert [tuple(next(both).images.shape[2:]) for _ in range(4)] == [(32, 32), (16, 16)] * 2
    assert torch.equal(loader.batch(2).images, loader.batch(2, size=(32, 32)).images)


def test_a_sandwich_is_drawn_once_and_reads_every_size_once_a_step(tmp_path, monkeypatch) -> None:
    read: list[tuple[int, tuple[int, int] | None]] = []
    batch = TrainLoader.batch

    def watched(self, step, part=0, parts=WHOLE, size=None):
        read.append((step, size))
        return batch(self, step, part, parts, size)

    drawn: list[int] = []

    def watching(config):
        sample = make_sampling(config)

        def watched(trainable, rng, step):
            drawn.append(step)
            return sample(trainable, rng, step)

        return watched

    monkeypatch.setattr(TrainLoader, "batch", watched)
    monkeypatch.setattr("nasmvt.training.step.make_sampling", watching)
    training = {**tiny_experiment()["training"], "steps": 2, "sampling": "sandwich", "random_archs": 2}
    values = tiny_experiment(choices={"resolution.cls": [16, 32]}, training={**training, "evaluation_images": 2})
    values["choices"] |= {"resolution.seg": [16, 32]}
    values["tasks"] = {name: values["tasks"][name] for name in ("cls", "seg")}
    train_supernet(parse(Experiment, values, "tiny"), out=tmp_path / "run", device=CPU)
    assert drawn == [0, 1]
    for step in range(2):
        assert sorted(size for number, size in read if number == step and size) == 2 * [(16, 16)] + 2 * [(32, 32)]


def space_of(values: dict):
    return parse(Experiment, {**tiny_experiment(), "choices": values}, "tiny").space


def test_work_is_counted_in_the_resolution_of_the_arch() -> None:
    space, tasks = space_of(CHOICES), make_tasks()
    supernet = Supernet(space, tasks)
    costs = Costs(space, tasks, supernet.sharing())
    small, large = (space.arch({**space.largest.to_dict(), "resolution.cls": side}) for side in (16, 32))
    assert costs.macs("cls").of(small)[0] < costs.macs("cls").of(large)[0] / 3
    assert costs.parameters(small) == costs.parameters(large)
    for arch in (small, large, space.smallest):
        for task in tasks:
            assert costs.macs(task).of(arch)[0] == sum(count_macs(space, tasks[task], arch).values())
    backbones = [supernet.materialize(arch).task("cls").backbone for arch in (small, large)]
    assert backbones[0].pos_embed.shape == backbones[1].pos_embed.shape  # tables of positions are for the largest


def test_latencies_are_refused() -> None:
    space, tasks = space_of({"resolution.cls": [16, 32]}), make_tasks()
    setting = setting_here(runtime="torch", device=CPU, threads=1, batch=1, precision="fp32")
    with pytest.raises(UserError, match=r"images of one size, but resolution\.cls lets archs choose"):
        measure_table(Networks(space, tasks, None), ["cls"], setting, Effort())


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"resolution.clss": [16, 32]},
            "choice resolution.clss names the task 'clss', unknown; did you mean 'cls'",
        ),
        ({"resolution.cls": [20, 32]}, "multiples of 8 pixels, the coarsest stride of the backbone, .*offers 20"),
        ({"resolution.cls": [8, 32]}, "from 16 on, but offers 8"),
        ({"resolution.cls.side": [16, 32]}, "called resolution.TASK, neck.TASK.SETTING or head.TASK.SETTING"),
        ({"resolution": [16, 32]}, "an experiment's choices are those of parts of its tasks"),
        ({"embed_dims": [16, 24]}, "an experiment's choices are those of parts of its tasks"),
    ],
)
def test_choices_that_fit_no_task_are_refused(choices, message) -> None:
    with pytest.raises(UserError, match=message):
        Supernet(space_of(choices), make_tasks())


def test_a_resolution_that_placements_do_not_follow_is_refused() -> None:
    values = tiny_experiment(choices={"resolution.det": [32, 48]})
    values["tasks"]["det"]["data"]["test"] = {"type": "keep_ratio", "short": 32}
    found = parse(Experiment, values, "tiny")
    tasks = make_tasks()
    tasks["det"] = type(tasks["det"])(name="det", config=found.tasks["det"], info=tasks["det"].info)
    with pytest.raises(UserError, match=r"images placed by 'keep_ratio' do not follow: change data\.test\.type"):
        Supernet(found.space, tasks)


def test_distillation_needs_one_resolution(tmp_path) -> None:
    training = {**tiny_experiment()["training"], "sampling": "sandwich", "distillation": {}}
    values = tiny_experiment(choices={"resolution.cls": [16, 32]}, training=training)
    values["tasks"] = {"cls": values["tasks"]["cls"]}
    with pytest.raises(UserError, match="archs choose the resolution of the task 'cls'"):
        train_supernet(parse(Experiment, values, "tiny"), out=tmp_path / "run", device=CPU)
