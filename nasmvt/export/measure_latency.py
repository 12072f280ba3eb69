"""Time the networks of the kit that holds this file: python measure_latency.py [THREADS]. Writes times.json beside it.

It needs numpy and onnxruntime. Take times.json back to where the kit was made.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Pass = Callable[[], object]


def interleaved(
    names: Sequence[str],
    reference: str,
    start: Callable[[str], Pass],
    rounds: int,
    passes: int,
    clock: Callable[[], float],
) -> tuple[float, dict[str, float]]:
    """Time networks in turns with one of them, so that what slows down a machine for a while slows down both.

    In every round each network is visited once, in random order: made anew, and passed in turns with the reference. A
    visit gives the quotient of their fastest passes, a network the median over its visits.

    Args:
        names: of the networks.
        reference: one of them.
        start: makes a network ready; what it returns does one pass.
        rounds: visits of each.
        passes: of a visit.
        clock: seconds.

    Returns:
        The milliseconds of the reference, the first decile of its passes, and the quotient of every network.
    """
    rng = np.random.default_rng(0)
    steady = start(reference)
    own: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in names}

    def once(work: Pass) -> float:
        begin = clock()
        work()
        return clock() - begin

    for _ in range(rounds):
        for place in rng.permutation(len(names)):
            work = start(names[place])
            once(steady)
            once(work)
            pairs = [(once(steady), once(work)) for _ in range(passes)]
            own += [seconds for seconds, _ in pairs]
            found[names[place]].append(min(seconds for _, seconds in pairs) / min(seconds for seconds, _ in pairs))
    ratios = {name: 1.0 if name == reference else float(np.median(values)) for name, values in found.items()}
    return 1000 * float(np.quantile(own, 0.1)), ratios


def clock_for(threads: int) -> Callable[[], float]:
    """Return the clock: with one thread the processor's time, which waiting for a core does not lengthen."""
    exact = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if threads == 1 and exact else time.perf_counter


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "hardware"))]
    return (named or [platform.processor() or platform.machine()])[0]


def time_task(folder: Path, plan: dict[str, Any], threads: int) -> dict[str, Any]:
    """Time the files of a task: <name>/network.onnx."""
    import onnxruntime

    def start(name: str) -> Pass:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        path = str(folder / name / "network.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        given: dict[str, np.ndarray] = {}
        for item in session.get_inputs():
            if item.name == "images":
                given["images"] = rng.standard_normal((plan["batch"], 3, *plan["image_size"]), dtype=np.float32)
            else:
                given[item.name] = np.array([plan["image_size"]] * plan["batch"], dtype=np.int64)
        return lambda: session.run(None, given)

    milliseconds, ratios = interleaved(
        list(plan["archs"]), plan["reference"], start, plan["rounds"], plan["passes"], clock_for(threads)
    )
    return {**plan, "milliseconds": milliseconds, "ratios": ratios}


def main(folder: Path, threads: str = "1") -> None:
    """Time all tasks of a kit."""
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    plan |= {"processor": processor(), "threads": int(threads)}
    plan["tasks"] = {name: time_task(folder / name, task, int(threads)) for name, task in plan["tasks"].items()}
    (folder / "times.json").write_text(json.dumps(plan), encoding="utf-8")


if __name__ == "__main__":
    main(Path(__file__).parent, *sys.argv[1:])
