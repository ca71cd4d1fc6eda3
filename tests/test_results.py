"The recorded results: complete, and within the bars that the project set itself."

import json
import re
from pathlib import Path

import pytest

import fsgen

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(ROOT.glob("data/results/*.json"))
ROWS = [row for file in FILES for row in json.loads(file.read_text())]
KEYS = {
    "experiment", "model", "task", "data", "shots", "split", "nats_per_dim", "stderr", "episodes",
    "parameters", "steps", "seconds", "seed", "commit", "device", "config",
}  # fmt: skip


def result(experiment):
    "The test row of an experiment."
    (row,) = (row for row in ROWS if row["experiment"] == experiment and row["split"] == "test")
    return row


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_rows_are_complete(file):
    for row in json.loads(file.read_text()):
        assert set(row) - {"paired"} == KEYS
        assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?", row["commit"])


def test_sampler_is_near_its_limit():
    bench = json.loads((ROOT / "data/bench.json").read_text())
    assert bench["sampling_speedup"] >= 350 and bench["sampling_over_forward"] <= 2.5
    assert bench["layers"] == 12 and re.fullmatch("[0-9a-f]{12}", bench["commit"])


def test_attention_flips():
    attention, conditional = (result(f"glyphs-inversion-{model}") for model in ("attention", "conditional"))
    assert attention["nats_per_dim"] <= 0.3 * conditional["nats_per_dim"]


def test_attention_flips_photographs():
    attention, conditional, meta = (
        result(f"brief-inversion-24-{model}") for model in ("attention", "conditional", "meta")
    )
    assert attention["episodes"] == conditional["episodes"] == 2000
    assert attention["nats_per_dim"] <= 0.5 * conditional["nats_per_dim"]
    assert meta["nats_per_dim"] > 0.9 * conditional["nats_per_dim"]  # no flip


@pytest.mark.parametrize("family", ["glyphs-4shot", "brief-4shot"])
def test_union_beats_both(family):
    ours = result(f"{family}-attentive-meta")
    for model in ("attention", "meta"):
        other = result(f"{family}-{model}")
        assert other["paired"]["to"] == ours["experiment"] and other["paired"]["low"] > 0
        for setting in ("steps", "batch", "targets", "seed", "layers", "planes", "skip"):
            assert other["config"][setting] == ours["config"][setting]


def test_omniglot_in_half_an_hour():
    row = result("characters-4shot-attention")
    assert row["nats_per_dim"] < 0.076 and row["seconds"] <= 30 * 60 and row["episodes"] == 2880


RUNS = [path for path in sorted(ROOT.glob("data/weights/*")) if not path.stem.startswith("chapter-")]


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_weights_are_those_of_the_results(path):
    row, model = result(path.stem), fsgen.load(path)
    assert model.experiment == fsgen.Experiment(**row["config"])
    assert [model.facts[key] for key in ("steps", "seconds", "commit")] == [
        row[key] for key in ("steps", "seconds", "commit")
    ]


def test_readme_links_exist():
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links), links
