"""Run the laboratory: answers in `answers.json`, tables in `tables.md`, pictures beside them.

python -m benchmarks.evidence --out runs/evidence [--quick] [--only ceiling,ranking]
"""

import argparse
import json
from pathlib import Path

import torch

from nasmvt.errors import UserError
from nasmvt.files import write_json, write_text

from .ceiling import ceiling
from .inheritance import inheritance
from .laboratory import Laboratory
from .pictures import draw
from .plan import Plan
from .ranking import after_training, comparing, ranking, ranking_at_equal_size, sampling
from .scores import scores
from .search import search
from .sharing import sharing
from .tables import as_markdown

QUESTIONS = {
    "ceiling": ceiling,
    "ranking": ranking,
    "comparing": comparing,
    "sampling": sampling,
    "after_training": after_training,
    "inheritance": inheritance,
    "ranking_at_equal_size": ranking_at_equal_size,
    "search": search,
    "scores": scores,
    "sharing": sharing,
}
"""In the order in which they are asked: later ones reuse what earlier ones trained."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder of results; one that exists goes on")
    options.add_argument("--quick", action="store_true", help="every question once and in small, see quick.yaml")
    options.add_argument("--plan", type=Path, help="another file like drawn.yaml, such as real.yaml")
    options.add_argument("--only", default=",".join(QUESTIONS), help="questions, by comma: " + ", ".join(QUESTIONS))
    given = options.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(QUESTIONS):
        options.error(f"--only names {', '.join(sorted(unknown))}; known: {', '.join(QUESTIONS)}")
    torch.set_num_threads(1)
    plan = given.plan or Path(__file__).with_name("quick.yaml" if given.quick else "drawn.yaml")
    try:
        run(Laboratory(Plan.read(plan), given.out), wanted)
    except UserError as error:
        raise SystemExit(str(error)) from None


def run(lab: Laboratory, wanted: list[str]) -> None:
    """Answer questions and write what is known so far after each."""
    path = lab.folder / "answers.json"
    answers = json.loads(path.read_text()) if path.exists() else {}
    for name in (name for name in QUESTIONS if name in wanted):
        answers[name] = QUESTIONS[name](lab)
        answers["spent"] = lab.store.spent()
        write_json(path, answers)
        write_text(lab.folder / "tables.md", as_markdown(answers))
        draw(name, answers, lab.folder)


if __name__ == "__main__":
    main()
