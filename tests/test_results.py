"The recorded results: complete, and within the bars that the project set itself."

import json
import math
import re
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import pytest
from safetensors.torch import load_file

import fsgen
from fsgen import cli
from fsgen.experiments import TABLES, read_data
from fsgen.plots import BOARD

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data/results"
FILES = sorted(RESULTS.glob("*.json"))
ROWS = [row for file in FILES for row in json.loads(file.read_text())]
KEYS = {
    "experiment", "model", "task", "data", "shots", "split", "nats_per_dim", "stderr", "episodes",
    "parameters", "steps", "seconds", "seed", "commit", "device", "config",
}  # fmt: skip
# compared with another row; nats/dim of its first 16 episodes; what `fsgen evaluate` says of it
MORE = {"paired", "first_nats", "classes", "groups", "run", "same_data", "images", "swap_cost"}
MORE |= {"recognised", "recognised_real"}  # of the demo's letters
MORE |= {"shape", "levels"}  # of the images; older rows have none
# the rows whose weights are in the repository
SHIPPED = [
    pytest.param(path, row, id=f"{path.stem}, {row['shots']} shots, {row['split']}")
    for path in sorted([*ROOT.glob("data/weights/*"), *ROOT.glob("fsgen/weights/*.safetensors")])
    for row in ROWS
    if row["experiment"] in (path.stem, f"{path.stem}-0")  # the package has the trainings of seed 0
]


def result(experiment):
    "The test row of an experiment."
    (row,) = (row for row in ROWS if row["experiment"] == experiment and row["split"] == "test")
    return row


loaded, read = cache(fsgen.load), cache(read_data)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_rows_are_complete(file):
    for row in json.loads(file.read_text()):
        assert set(row) - MORE == KEYS
        assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?", row["commit"])


def test_demo():
    "Attention flips, a step with a place layer nearly does; what the Copying PixelCNN draws is the letter."
    models = ("attention", "conditional", "meta", "place-meta")
    attention, conditional, meta, place_meta = (result(f"flip-12-{m}")["nats_per_dim"] for m in models)
    assert attention <= 0.05 * conditional and place_meta <= 0.2 * conditional and meta > 0.5 * conditional
    copying, summary = (result(f"glyphs-4shot-{model}") for model in ("copying", "conditional"))
    assert copying["recognised"] >= 0.8 * copying["recognised_real"] and summary["recognised"] < 0.1


def test_one_shot():
    "Of the 400 drawings of the one-shot runs a lookup misreads a sixth at most, and the summary most."
    errors = json.loads((ROOT / "data/one_shot.json").read_text())["errors"]
    for way in ("one way", "both ways"):
        copying, attention, summary = (errors[name][way] for name in ("copying", "attention", "conditional"))
        assert len(copying) == len(attention) == len(summary) == 20
        assert sum(copying) < sum(attention) <= 20 / 6 and sum(summary) > 20 / 2


def test_rates_of_the_glyphs_are_the_best_of_those_tried():
    table, tried = TABLES["glyphs-4shot"], {}
    for row in json.loads((ROOT / "data/rates.json").read_text()):
        tried[row["experiment"]] = row["held_out"]
    for e in table.rates():
        best = table.best[e.name.removeprefix("glyphs-4shot-").partition("-rate-")[0]]
        assert tried[f"{e.name.partition('-rate-')[0]}-rate-{best:g}"] <= tried[e.name]


def test_a_dead_inner_loss_hears_nothing():
    "Where no channel of g's last ReLU is ever on, and only there, another class's support set costs nothing."
    known = json.loads((ROOT / "data/rates.json").read_text()) + [
        row for row in ROWS if row["split"] == "test"
    ]
    costs = {row["experiment"]: row.get("swap_cost") for row in known}
    rows = json.loads((ROOT / "data/living.json").read_text())
    assert len(rows) == 14
    for row in rows:
        assert row["living"][-1] > 0 or "scaled" not in row["experiment"]
        assert (costs[row["experiment"]] == 0) == (row["living"][-1] == 0)


def test_a_place_layer_flips():
    "In every training: one step down the likelihood flips into a place layer, and half-way at best without."
    for seed in range(3):
        none = result(f"flip-no-support-{seed}")["nats_per_dim"]
        left = {
            body: result(f"flip-inversion-{body}-nll-{seed}")["nats_per_dim"] / none
            for body in ("body", "place", "place-and-role", "place-layer")
        }
        assert left.pop("place-layer") < 0.2 and min(left.values()) > 0.45


def test_a_learned_loss_is_partly_the_likelihood():
    "In every training its projection on the likelihood's gradient gains half of what it gains, and not all."
    gains = json.loads((ROOT / "data/gradients.json").read_text())["gains"]
    assert len(gains) == 3
    for row in gains:
        share = max(row["its projection on the support's NLL"]) / max(row["the learned gradient"])
        assert 0.5 < share < 0.8


def test_more_inner_steps():
    "At equal updates more steps down the likelihood gain, and longer training with one gains as much."
    nats = {
        (kind, seed): result(f"inner-steps-nll-{kind}-{seed}")["nats_per_dim"]
        for kind, seeds in {"1": 3, "3": 3, "5": 1, "1-longer": 1}.items()
        for seed in range(seeds)
    }
    assert all(nats["1", seed] - nats["3", seed] > 0.015 for seed in range(3))
    assert nats["1-longer", 0] < nats["5", 0] < nats["3", 0]


def test_lookups_flip_photographs():
    "In every training a lookup leaves a fiftieth of the nats at most, and what looks nothing up nine tenths."
    rows = {row["experiment"]: row for row in ROWS if row["split"] == "test"}
    for seed in range(3):
        of = "brief-inversion-24-{}-{}".format
        none = rows[of("no-support", seed)]["nats_per_dim"]
        for name in ("attention", "attention-uniform", "copying"):
            assert rows[of(name, seed)]["nats_per_dim"] < 0.02 * none
        for name in ("conditional", "places"):
            assert 0.9 * none < rows[of(name, seed)]["nats_per_dim"] < none
        assert rows[of("attention", seed)]["episodes"] == 2000


@pytest.mark.parametrize("start", ["", "-scaled"])
def test_the_start_of_the_weights_changes_no_order(start):
    "On glyphs, whatever the seeds: copying, attention, the mean image, the summary."
    rows = json.loads((RESULTS / "glyphs-init.json").read_text())
    nats = {row["experiment"]: row["nats_per_dim"] for row in rows if row["split"] == "test"}
    names = "copying", "attention", "mean-image", "conditional"
    of = [[nats[f"glyphs-4shot-{name}{start}-{seed}"] for seed in range(3)] for name in names]
    assert all(max(lower) < min(higher) for lower, higher in pairwise(of))


def test_a_sharp_start_is_dependable():
    "Whatever the seeds: copying, attention from a sharp start, from a uniform one, and none."
    of = {}
    for name in ("copying", "attention", "attention-uniform", "mean-image", "no-support"):
        named = re.compile(rf"glyphs-4shot-{name}-\d")
        rows = [row for row in ROWS if row["split"] == "test" and named.fullmatch(row["experiment"])]
        of[name] = [row["nats_per_dim"] for row in rows]
        assert len(rows) >= 2
    assert max(of["copying"]) < min(of["attention"]) and max(of["attention"]) < min(of["attention-uniform"])
    assert max(of["attention"]) < min(of["mean-image"]) and max(of["mean-image"]) < min(of["no-support"])
    assert max(of["attention"]) - min(of["attention"]) < 0.1 * (
        max(of["attention-uniform"]) - min(of["attention-uniform"])
    )


def test_scoreboard():
    "All its rows are on one test set; the uniform guess costs log 2."
    rows = [row for row in ROWS if row["split"] == "test" and row["experiment"].startswith("glyphs-4shot-")]
    assert len({(row["images"], row["episodes"], row["shots"], row["task"]) for row in rows}) == 1
    named = {row["experiment"].rpartition("-")[0] for row in rows}
    assert named >= {f"glyphs-4shot-{row.experiment}" for row in BOARD}
    uniform = result("glyphs-4shot-uniform-0")
    assert uniform["nats_per_dim"] == pytest.approx(math.log(2)) and uniform["stderr"] < 1e-6


def test_omniglot():
    "Whatever the number of shots, each of these models beats the one before it."
    models = ("no-support", "conditional", "mean-image", "attention", "copying")
    rows = {(row["experiment"], row["shots"]): row for row in ROWS if row["split"] == "test"}
    for shots in (1, 2, 4, 8):
        nats = [rows[f"characters-{model}-0", shots]["nats_per_dim"] for model in models]
        assert nats == sorted(nats, reverse=True)
        none, mean, lookup = (rows[f"characters-{models[k]}-0", shots]["paired"] for k in (0, 2, 3))
        assert none["low"] > 0 > mean["high"] and mean["low"] > lookup["high"]  # to the summary's


def test_omniglot_from_other_seeds():
    "The differences keep their order and move by less than 0.001."
    rows = [row for row in ROWS if row["experiment"].startswith("characters-third-") and "paired" in row]
    for shots in (1, 2, 4, 8):
        of = {}
        for row in rows:
            if (row["split"], row["shots"]) == ("test", shots):
                of.setdefault(row["model"], []).append(row["paired"]["mean"])
        assert all(max(found) - min(found) < 0.001 for found in of.values())
        assert max(of["copying"]) < min(of["attention"]) and max(of["attention"]) < min(of["meta"])
        assert max(of["meta"]) < min(of["mean-image"]) and max(of["mean-image"]) < 0 < min(of["no-support"])


def test_toys():
    "In every seed attention is below hearing nothing, and errors, not levels, take copying below attention."
    names = (
        "no-support attention attention-faster copying copying-output-error copying-patch-and-error".split()
    )
    level = [result(f"brief-eth80-16-copying-level-{seed}")["nats_per_dim"] for seed in range(3)]
    for seed in range(3):
        none, attention, faster, copying, at_output, beside = (
            result(f"brief-eth80-16-{name}-{seed}")["nats_per_dim"] for name in names
        )
        assert max(attention, faster) < none
        assert max(at_output, beside) < copying - 0.003 and beside < min(attention, faster) - 0.003
        assert level[seed] > copying - 0.003


def test_scaled_start():
    "From PyTorch's start a training ends above a table of counts, from the scaled one below half of it."
    counts = min(json.loads((ROOT / "data/counts.json").read_text())["ETH-80, 16x16, 8 levels"])
    for model, seed in product(("conditional", "attention"), range(3)):
        default, scaled = (result(f"energy-{model}-{init}-{seed}") for init in ("default", "scaled"))
        assert scaled["nats_per_dim"] < counts / 2 < counts < default["nats_per_dim"]


@pytest.mark.parametrize("path, row", SHIPPED)
def test_figure_comes_from_the_weights(path, row, real):
    "The first 16 episodes of a figure, measured again."
    model = loaded(path)
    experiment = cli.episode_setting(model.experiment)
    if experiment.data != "glyphs":
        real(experiment.data)
    data = getattr(read(experiment), row["split"])
    measured, _ = fsgen.evaluate(model, fsgen.fixed_episodes(data, experiment.task, row["shots"], 16))
    assert measured["first_nats"] == pytest.approx(row["first_nats"], abs=1e-4)
    # and the recorded mean is one that they may be a part of
    spread = row["stderr"] * row["episodes"] ** 0.5
    assert abs(measured["nats_per_dim"] - row["nats_per_dim"]) < 4 * spread / 16**0.5


@pytest.mark.parametrize("path, row", SHIPPED)
def test_weights_are_those_of_the_results(path, row):
    model = loaded(path)
    assert [model.facts[key] for key in ("steps", "seconds", "commit")] == [
        row[key] for key in ("steps", "seconds", "commit")
    ]
    config = model.config
    # what fsgen 0.1 saved has a residual in the last layer, which nothing ever read
    old = f"body.layers.{config.layers - 1}.residual.weight" in load_file(path)
    unread = old * (config.planes * config.planes + config.planes)
    assert row["parameters"] == sum(weight.numel() for weight in model.parameters()) + unread


@pytest.mark.parametrize("path, row", [each for each in SHIPPED if not each.id.startswith("chapter-")])
def test_weights_are_of_the_experiment(path, row):
    assert loaded(path).experiment == fsgen.Experiment.from_record(row["config"])


def test_readme_links_exist():
    text = (ROOT / "README.md").read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links), links


def test_which_models_hear_their_support():
    "Another class's support set costs nats where it is heard, and none where the encoder is dead."
    rows = [row for row in ROWS if row.get("swap_cost") is not None]

    def costs(pattern):
        found = [row["swap_cost"] for row in rows if re.fullmatch(pattern, row["experiment"])]
        assert len(found) >= 3
        return found

    assert min(costs(r"(brief-eth80-16|glyphs-4shot|characters|brief-inversion-24)-attention-\d")) > 0.02
    assert min(costs(r"brief-eth80-16-(conditional|places)-\d")) > 0.05
    assert min(costs(r"glyphs-4shot-(conditional|places)-scaled-\d")) > 0.01
    assert min(costs(r"brief-inversion-24-(conditional|places)-slower-\d")) > 0.01
    assert min(costs(r"characters-conditional-\d")) > 0.01  # at each number of shots
    for deaf in (r"brief-inversion-24-(conditional|places)-\d", r".*-no-support-\d"):
        assert {*costs(deaf)} == {0}
