"""Searches on a Ray cluster whose nodes are killed and added at random, against the search that nothing disturbs.

The nodes are real Ray nodes, all on this machine, of one CPU each beside a head without any. In every round the run is
searched anew by `nasmvt search` with `--workers 0..3` while this program kills nodes (their processes end without a
word) and adds others, at moments drawn by the round's number. A round passes if the search ends by itself with the
candidates and the winner, to the last digit, of the search in one process, and says nothing on the terminal but its own
sentences.

    python benchmarks/chaos.py runs/demo [--rounds 20] [--first 0] [--set population=4 --set images=16]

`--set` changes settings of the search, so that a round takes seconds.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nasmvt.cluster import import_ray

FOREIGN = re.compile(r"Traceback|\(raylet|\(gcs|^\[\d{4}-|core_worker|\bE\d{4}\b|stack trace|StackTrace", re.MULTILINE)
"""What stands in Ray's own output, and not in ours."""


def copied(run: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Return a copy of what a search needs of a run, with other settings of the search."""
    (folder / "supernet").mkdir(parents=True)
    shutil.copy(run / "data.json", folder)
    shutil.copy(run / "supernet" / "checkpoint.pt", folder / "supernet")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["search"] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder


def command(run: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "nasmvt", "search", str(run), "--out", str(out), "--device", "cpu", *options]


def outcome(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the table of the candidates and the winner."""
    return (folder / "candidates.csv").read_text(), yaml.safe_load((folder / "best.yaml").read_text())


class Nodes:
    """The cluster: a head without CPUs, and nodes of one CPU that come and go."""

    MOST = 3

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes: list[Any] = []
        self.killed = self.added = 0

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(wait=False, num_cpus=1))
        self.added += 1

    def kill(self, rng: np.random.Generator) -> None:
        self.cluster.remove_node(self.nodes.pop(rng.integers(len(self.nodes))), allow_graceful=False)
        self.killed += 1

    def change(self, rng: np.random.Generator) -> None:
        """Kill a node or add one; there may be none for a while."""
        if not self.nodes or (len(self.nodes) < self.MOST and rng.random() < 0.5):
            self.add()
        else:
            self.kill(rng)


def played(nodes: Nodes, run: Path, out: Path, rng: np.random.Generator, given: argparse.Namespace) -> tuple[str, str]:
    """Search while nodes come and go; return what went wrong, or "", and the output."""
    nodes.killed = nodes.added = 0
    options = ("--workers", "0..3", "--address", nodes.cluster.address)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command(run, out, *options), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        deadline, fault = time.monotonic() + given.limit, ""
        while True:
            try:
                process.wait(rng.uniform(0.2, 1.8) * given.pause)
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    fault = "hangs"
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    break
                nodes.change(rng)
        output.seek(0)
        said = output.read()
    if not fault and process.returncode != 0:
        fault = f"ends with {process.returncode}"
    if found := FOREIGN.search(said):
        fault = fault or f"prints {found.group()!r}"
    return fault, said


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--first", type=int, default=0, help="number of the first round")
    arguments.add_argument("--seconds", type=float, default=float("inf"), help="no round begins after so many")
    arguments.add_argument("--limit", type=float, default=300.0, help="seconds after which a round counts as hanging")
    arguments.add_argument("--pause", type=float, default=4.0, help="mean seconds between two events")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the search")
    given = arguments.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in given.set)}
    os.environ.setdefault("RAY_worker_niceness", "0")  # on a busy machine a patient process would never start
    import_ray("chaos")
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as temporary:
        run = copied(given.run, Path(temporary) / "run", changes)
        subprocess.run(command(run, Path(temporary) / "quiet", "--workers", "0"), check=True, capture_output=True)
        wanted = outcome(Path(temporary) / "quiet")
        nodes = Nodes()
        nodes.add()
        passed = played_rounds = 0
        try:
            for number in range(given.first, given.first + given.rounds):
                if time.monotonic() > end:
                    break
                played_rounds += 1
                out, started = Path(temporary) / str(number), time.monotonic()
                fault, said = played(nodes, run, out, np.random.default_rng(number), given)
                if not fault and outcome(out) != wanted:
                    fault = "finds something else"
                passed += not fault
                events = f"{nodes.killed} nodes killed, {nodes.added} added, {said.count('a worker died')} workers lost"
                seconds = time.monotonic() - started
                print(f"round {number}: {fault or 'the same'} ({events}, {seconds:.0f} s)", flush=True)
                if fault:
                    print(said, flush=True)
        finally:
            nodes.cluster.shutdown()
    print(f"{passed} of {played_rounds} rounds: the same candidates, scores and winner")


if __name__ == "__main__":
    main()
