"""Run the laboratory: answers in `answers.json`, tables in `tables.md`, pictures beside them.

python -m benchmarks.evidence --out runs/evidence --processes 2 [--quick] [--only ceiling,ranking]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from nasmvt.errors import UserError
from nasmvt.files import write_json, write_text

from .laboratory import Laboratory
from .pictures import draw
from .plan import Plan
from .questions import QUESTIONS, asked
from .tables import as_markdown


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of results; one that exists goes on")
    options.add_argument("--quick", action="store_true", help="every question once and in small, see quick.yaml")
    options.add_argument("--plan", type=Path, help="another file like drawn.yaml, such as real.yaml")
    options.add_argument("--only", default=",".join(QUESTIONS), help="questions, by comma: " + ", ".join(QUESTIONS))
    options.add_argument("--processes", type=int, default=1, help="that work at once, each on one thread (default 1)")
    given = options.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(QUESTIONS):
        options.error(f"--only names {', '.join(sorted(unknown))}; known: {', '.join(QUESTIONS)}")
    if given.processes < 1:
        options.error(f"--processes must be at least 1, but {given.processes} was given")
    plan = given.plan or Path(__file__).with_name("quick.yaml" if given.quick else "drawn.yaml")
    try:
        run(plan, given.out, [name for name in QUESTIONS if name in wanted], given.processes)
    except UserError as error:
        raise SystemExit(str(error)) from None


def run(plan: Path, folder: Path, wanted: list[str], processes: int) -> None:
    """Answer questions in processes of their own, and write what is known so far after each."""
    lab = Laboratory(Plan.read(plan), folder)
    for name, answer in asked(plan, folder, wanted, processes):
        write(lab, name, answer)


def write(lab: Laboratory, name: str, answer: Any) -> None:
    """Add an answer to `answers.json`, and make the tables and the question's picture anew."""
    path = lab.folder / "answers.json"
    answers = json.loads(path.read_text()) if path.exists() else {}
    answers |= {name: answer, "spent": lab.store.spent()}
    write_json(path, answers)
    write_text(lab.folder / "tables.md", as_markdown(answers))
    draw(name, answers, lab.folder)


if __name__ == "__main__":
    main()
