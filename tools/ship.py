"""Put models of the main table into the package: python tools/ship.py RUNS (the folder of the table's runs)

Copies the weights of each run of seed 0 that has recorded rows to fsgen/weights, and writes the model cards
of all that are there from data/results/characters.json.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from fsgen.evaluation import shots_table
from fsgen.runs import BEST, load

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "fsgen/weights"
TABLE = "characters"
CARD = """# {name}

{what} (chapter `{chapter}`), {parameters:,} parameters, for binary images of 26x26. It has
seen a few drawings of a sign and draws another.

- **Use**: `fsgen.load("{name}")`{alias}, or `fsgen sample {name} --support a.png b.png c.png`.
- **Data**: Omniglot (Lake et al. 2015, github.com/brendenlake/omniglot, MIT licence), drawings
  inverted and max-pooled 4x4 to 26x26. 45 alphabets to train on, 5 held out for the test.
- **Task**: one to eight drawings of a character are the support set, another one is the target; the
  number of drawings was drawn anew for every batch.
- **Figures**, nats/dim on the held-out alphabets, {episodes:,} episodes, ± standard error over
  characters (on the training alphabets in brackets). The rows are in `data/results/{table}.json` of the
  repository, and its tests measure the first episodes again.

{figures}

- **Training**: `fsgen reproduce {table}` of commit {commit}, {steps:,} steps of {batch} targets,
  {minutes:.0f} minutes of {device}, seed {seed}.
- **Limits**: it has seen thin strokes only. Thick strokes, print and photographs are off its data
  (chapter 21 measures print).
- **Licence** of the weights: Apache-2.0, as the package.
"""


def rows_of(name: str) -> list[dict]:
    "The recorded rows of a shipped model."
    rows = json.loads((ROOT / f"data/results/{TABLE}.json").read_text())
    return [row for row in rows if row["experiment"] == f"{name}-0"]


def card(name: str) -> str:
    "The model card, from the recorded rows and the weights."
    rows, model = rows_of(name), load(WEIGHTS / f"{name}.safetensors")
    first, kind = rows[0], type(model)
    aliases = [f'`fsgen.load("{alias}")`' for alias, of in BEST.items() if of == name]
    return CARD.format(
        name=name,
        what=re.sub("(?<=[a-z])(?=[A-Z])", " ", kind.__name__).replace("Pixel CNN", "PixelCNN"),
        chapter=kind.__module__.removeprefix("fsgen."),
        alias="".join(f" or {alias}" for alias in aliases),
        parameters=first["parameters"],
        episodes=first["episodes"],
        table=TABLE,
        figures=shots_table(rows),
        commit=first["commit"],
        steps=first["steps"],
        batch=first["config"]["batch"] * first["config"]["targets"],
        minutes=first["seconds"] / 60,
        device=first["device"],
        seed=first["seed"],
    )


if __name__ == "__main__":
    for run in sorted(Path(sys.argv[1]).glob(f"{TABLE}-*-0/weights.safetensors")):
        name = run.parent.name.removesuffix("-0")
        if rows_of(name):
            shutil.copyfile(run, WEIGHTS / f"{name}.safetensors")
    for path in WEIGHTS.glob(f"{TABLE}-*.safetensors"):
        path.with_suffix(".md").write_text(card(path.stem))
