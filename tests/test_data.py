"Data sets as their users have them: real files, folders of one's own, and builds that are killed."

import io
import json
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from fsgen.datasets import DATA
from fsgen.experiments import MODELS, experiment_names, find_experiment
from fsgen.training import train

SMALL = "--layers 2 --planes 8 --skip 8 --batch 2 --steps 2 --precision float32 --validate 0".split()
PAPER = [name for name in experiment_names() if find_experiment(name).settings.planes == 128]


def noise(side, seed=0):
    "The content of a PNG of that side."
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def put(folder, names, side=48, different=12):
    "Pictures of these names in a folder, so many different ones in turn."
    contents = [noise(side, seed) for seed in range(different)]
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents[k % different])


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    "A data folder with two tiny data sets in the official layouts."
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "data/imagenet", [f"{part}/n0{k}/{k}.JPEG" for part in ("train", "val") for k in range(4)])
    shop = tmp_path / "data/Stanford_Online_Products"
    put(shop, [f"chair_final/{k}_{i}.JPG" for k in range(4) for i in range(3)])
    for part, objects in (("train", (0, 1)), ("test", (2, 3))):
        lines = [f"0 {k} 4 chair_final/{k}_{i}.JPG" for k in objects for i in range(3)]
        (shop / f"Ebay_{part}.txt").write_text("\n".join(["image_id class_id super_class_id path", *lines]))
    return tmp_path


def test_paper_presets_are_there():
    assert set(PAPER) == {
        f"{name}-{model}" for name in ("inversion-24", "inversion-48", "products-32") for model in MODELS
    }


@pytest.mark.parametrize("name", PAPER)
def test_one_step_at_the_scale_of_the_paper(stand_ins, name):
    one = find_experiment(name).vary(steps=1, batch=1, validate=0, precision="float32")
    model = train(one, stand_ins / "run")
    assert model.facts["steps"] == 1 and model.shape == (3, one.size, one.size) and model.levels == 256
    line = json.loads((stand_ins / "run/metrics.jsonl").read_text())
    assert 4 < line["loss"] < 8 and line["gradient_norm"] > 0  # log 256 = 5.5 before training


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "family, data",
    [
        ("brief-inversion-24", "tiny-imagenet"),
        ("brief-products-32", "stanford-online-products"),
        ("brief-eth80-32", "ETH-80"),
    ],
)
def test_real_photographs(fsgen, real, tmp_path, family, data, model):
    real(data)
    run = tmp_path / "run"
    code, _, error = fsgen("train", f"{family}-{model}", *SMALL, "--size", 16, "--out", run)
    assert code == 0, error
    code, out, error = fsgen("evaluate", run, "--episodes", 16, "--json", tmp_path / "results.json")
    assert code == 0, error
    test, _ = json.loads((tmp_path / "results.json").read_text())
    assert test["data"] == data and test["episodes"] == 16
    assert 1 < test["nats_per_dim"] < np.log(test["config"]["levels"]) + 1


def test_own_folder_without_a_name(fsgen, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "mine", [f"{letter}/{k}.png" for letter in "abcdef" for k in range(3)])
    line = ["--data", "folder", "--root", "mine", "--task", "products", *SMALL]
    code, _, error = fsgen("train", *line)
    assert code == 0, error
    code, _, error = fsgen("sample", "runs/custom-0", "--episodes", 1, "--samples", 1)
    assert code == 0 and (tmp_path / "runs/custom-0/samples.png").exists(), error

    (tmp_path / "mine/b/1.png").write_bytes(b"")
    assert "b/1.png (an empty file)" in refused("train", *line, "--out", tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_data_says_what_is_there(fsgen, stand_ins):
    put(stand_ins / "data/mine", [f"{letter}/{k}.png" for letter in "abcdef" for k in range(3)])
    code, out, error = fsgen("data", "--json", stand_ins / "data.json")
    assert code == 0, error
    rows = {row.pop("name"): row for row in json.loads((stand_ins / "data.json").read_text())}
    counts = {name: [*row.values()] for name, row in rows.items() if row["found"]}
    assert set(rows["mine"]) == {"found", "train_classes", "train_images", "test_classes", "test_images"}
    assert counts.pop("glyphs")[2] > 10_000
    assert counts == {
        "imagenet": [True, 4, 4, 4, 4],
        "stanford-online-products": [True, 2, 6, 2, 6],
        "mine": [True, 5, 15, 1, 3],
    }
    assert all(f"--download {name}" in out for name in ("omniglot", "tiny-imagenet"))
    assert "cache: none" in out and "--data folder --root mine" in out
    assert set(rows) >= {name for name, data in DATA.items() if data.urls}


def test_killed_build_leaves_nothing_that_looks_whole(command, run_cli, tmp_path):
    cache, environment = tmp_path / "cache", {"FSGEN_CACHE": str(tmp_path / "cache")}
    put(tmp_path / "mine", [f"{letter}/{k}.png" for letter in "abcde" for k in range(160)], side=300)
    line = ["train", "--data", "folder", "--root", tmp_path / "mine", *SMALL, "--out", tmp_path / "run"]
    process = subprocess.Popen([*command, *map(str, line)], env=os.environ | environment)
    while process.poll() is None and not any(path.stat().st_size for path in cache.glob("*.part")):
        time.sleep(0.005)
    assert process.poll() is None, "the build ended before it could be killed"
    process.kill()
    process.wait()
    assert {path.suffix for path in cache.iterdir()} == {"", ".part"}  # the lock
    done = run_cli(*line, env=environment)
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in cache.iterdir()} == {"", ".npy"}
    (path,) = cache.glob("*.npy")
    images = np.load(path, mmap_mode="r")
    assert images.shape == (800, 3, 16, 16) and images[-1].any()


def test_build_holds_little_in_memory(real, tmp_path):
    real("tiny-imagenet")
    code = """
        import resource
        from fsgen.datasets import photographs
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
        before = peak()
        sets = photographs("tiny-imagenet", 64)
        print(peak() - before, sum(part.images.numel() for part in sets) // 10**6)
    """
    environment = os.environ | {"FSGEN_CACHE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    added, cache = map(int, run.stdout.split())  # MB
    assert cache > 250 and added < 0.5 * cache
