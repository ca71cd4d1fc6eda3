"The command line as its users meet it: runs that end, runs that are killed, and mistakes."

import io
import json
import math
import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fsgen import bench, cli, experiments
from fsgen.conditional import ConditionalConfig, ConditionalPixelCNN
from fsgen.datasets import DATA, OMNIGLOT_PARTS
from fsgen.episodes import TASKS
from fsgen.files import LOCK
from fsgen.likelihood import check
from fsgen.runs import RunFolder, load

TINY = "--size 10 --layers 2 --planes 8 --skip 8 --batch 8 --validate 0".split()
NAME = "glyphs-inversion-attention"


@pytest.fixture(scope="session")
def tiny_run(run_cli, tmp_path_factory):
    "A finished run of 200 steps, made by the installed command, never interrupted."
    out = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_cli("train", NAME, *TINY, "--steps", 200, "--checkpoint-every", 5, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_help(fsgen):
    code, out, _ = fsgen("--help")
    assert code == 0 and all(name in out for name in cli.COMMANDS) and out.count("\n") < 24
    code, same, _ = fsgen("--import", "fsgen.bench", "--help")  # not from __main__, but from the commands
    assert code == 0 and same == out
    script = "import atexit, sys, fsgen.__main__ as m; atexit.register(lambda: print('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{script}; m.main()"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("False\n"), done.stderr
    code, out, _ = fsgen("train", "--help")
    out = "".join(out.split())  # lines are broken at hyphens
    assert code == 0 and all(f"{family}-MODEL" in out for family in experiments.FAMILIES)
    code, out, _ = fsgen("train", NAME, "--help")
    assert code == 0 and "--learning-rate" in out and "optimizer steps" in out
    assert "--stride" in out and "--inner-rate" not in out  # the settings of its own model


def test_interrupted_run_says_how_to_go_on(command, tmp_path):
    out = tmp_path / "stopped"
    line = [*command, "train", NAME, *TINY, "--steps", "100000", "--out", out]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved in" in error and "same command" in error and "Traceback" not in error
    assert len(RunFolder(out).checkpoints()) in (1, 2)


def test_evaluate_and_sample(fsgen, tiny_run, tmp_path):
    results = tmp_path / "results.json"
    code, out, error = fsgen("evaluate", tiny_run, tiny_run, "--episodes", 40, "--json", results)
    assert code == 0, error
    assert "paired: +0.0000 nats/dim, 95 % [+0.0000, +0.0000]" in out
    rows = json.loads(results.read_text())
    assert [row["split"] for row in rows] == ["test", "train"] * 2
    assert rows[0]["experiment"] == NAME and rows[0]["episodes"] == 40 and rows[0]["steps"] == 200
    assert 0 < rows[0]["stderr"] < rows[0]["nats_per_dim"] < 0.7
    assert rows[2]["paired"]["run"] == rows[0]["run"] == str(tiny_run) and rows[0]["same_data"]

    code, out, error = fsgen("evaluate", tiny_run, f"{tiny_run}/", "--episodes", 1, "--json", "/dev/null")
    assert code == 0 and out.count("too few for a standard error") == 4 and "±" not in out, error
    assert "as one class has no interval" in out

    code, out, error = fsgen("sample", tiny_run, "--episodes", 2, "--samples", 1, "--out", tmp_path / "new")
    assert code == 0, error
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"samples.png", "attention.png"}
    other = shutil.copytree(tiny_run, tmp_path / "other")  # two runs of one model are told by their folders
    code, out, error = fsgen(
        "sample", tiny_run, other, "--episodes", 1, "--samples", 1, "--out", tmp_path / "both"
    )
    assert code == 0, error
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "samples.png", "tiny-attention.png", "other-attention.png",
    }  # fmt: skip


MY_TABLES = """
from fsgen.experiments import FAMILIES, GLYPHS, GROUPS, LOSSES, TABLES, Family, Table

GROUPS["small"] = ("mini",)

def broken(logits, images):
    raise ZeroDivisionError

LOSSES["broken"] = broken
TINY = dict(size=10, layers=1, planes=4, skip=4, steps=300, batch=2, checkpoint_every=10, validate=0)
ROWS = {"no-support": {}, "places": {}}
for name, other in dict(mini={}, broken=dict(loss="broken"), nowhere=dict(data="omniglot")).items():
    FAMILIES[name] = Family(GLYPHS | TINY | other)
    TABLES[name] = Table(name, ROWS, to="no-support", seeds=1)
"""


@pytest.fixture
def tables(tmp_path):
    "A folder with a module of tables; the words that make the table `mini` of it, by two workers."
    (tmp_path / "my_tables.py").write_text(MY_TABLES)
    return tmp_path, "reproduce mini --import my_tables --workers 2 --json results.json".split()


def owner(run):
    "The process that trains in a run folder, once it has saved something there; 0 if nobody does."
    try:
        return json.loads((run / "lock").read_bytes())["pid"] if RunFolder(run).checkpoints() else 0
    except (OSError, ValueError):
        return 0


def test_reproduce_is_stopped_and_goes_on(command, run_cli, tables):
    folder, line = tables
    runs = [folder / f"runs/mini/mini-{row}-0" for row in ("no-support", "places")]
    for stop, code, said in (
        (lambda command: command.kill(), -signal.SIGKILL, ""),
        (lambda command: os.killpg(command.pid, signal.SIGINT), 130,
         "fsgen: Stopped. Run the same command to go on.\n"),
        (lambda _: os.kill(owner(runs[1]), signal.SIGKILL), 2,
         "fsgen: The training mini-places-0 was killed; run the same command to go on.\n"),
    ):  # fmt: skip
        for run in runs:
            (run / "lock").unlink(missing_ok=True)  # it may name one that was killed
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*command, *line], cwd=folder, start_new_session=True, **pipes)
        while process.poll() is None and not all(map(owner, runs)):
            time.sleep(0.01)
        stop(process)
        _, error = process.communicate(timeout=60)  # until no training has the pipes any more
        # multiprocessing itself may have a word to say of what a killed process has left
        ours = "".join(line for line in error.splitlines(True) if "resource_tracker" not in line)
        assert (process.returncode, ours) == (code, said)  # and no progress bar
    assert not any(folder.rglob(cli.MEASURED))

    done = run_cli(*line, cwd=folder)
    assert done.returncode == 0 and not done.stderr and "2 trainings, 2 to do" in done.stdout, done.stderr
    rows = json.loads((folder / "results.json").read_text())
    assert len(rows) == 4 and {row["steps"] for row in rows} == {300}
    for row in rows:
        to = None if row["model"] == "no-support" else "mini-no-support-0"
        assert row.get("paired", {}).get("to") == to
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    line[line.index("mini")] = "small"
    done = run_cli(*line, cwd=folder)
    assert "2 trainings, 0 to do" in done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_reproduce_that_fails(run_cli, refused, tables):
    folder, line = tables
    line[line.index("2")], line[1], data = "1", "nowhere", {"FSGEN_DATA": str(folder)}
    done = run_cli(*line, cwd=folder, env=data)
    assert done.returncode == 2 and done.stderr.startswith("fsgen: images_background"), done.stderr
    assert done.stderr.count("\n") == 1
    line[1] = "broken"
    done = run_cli(*line, cwd=folder)
    assert done.returncode == 2 and "ZeroDivisionError" in done.stderr
    assert "-0 failed, as said above" in done.stderr.splitlines()[-1]
    assert "workers must be at least 1, not 0" in refused("reproduce", "glyphs-4shot", "--workers", 0)
    assert "seeds must be at least 1, not 0" in refused("reproduce", "glyphs-4shot", "--seeds", 0)
    assert "no brief version" in refused("reproduce", "questions", "--brief")
    assert "leave --seeds out" in refused("reproduce", "glyphs-4shot", "--rates", "--seeds", 3)


def test_gpu_of_a_worker(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert cli._gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert cli._gpus() == ["4", "7"]
    before = os.environ.copy()
    with cli._as_worker("7"):
        assert os.environ == before | {"CUDA_VISIBLE_DEVICES": "7", "TQDM_DISABLE": "1"}
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert os.environ == before and signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def test_demo(fsgen, tmp_path, monkeypatch):
    few = dict(cli.DEMO, inversion=("flip-12", ("attention", "place-meta")))
    few["characters"] = "glyphs-4shot", ("copying",)
    monkeypatch.setattr(cli, "DEMO", few)
    for family, models in few.values():
        for model in models:
            named = experiments.find_experiment(f"{family}-{model}")
            small = named.vary(size=10, layers=2, steps=3, checkpoint_every=3)
            monkeypatch.setitem(experiments.EXPERIMENTS, named.name, small)
    code, out, error = fsgen("demo", "--out", tmp_path / "demo")
    assert code == 0, error
    rows = json.loads((tmp_path / "demo/results.json").read_text())
    cells = {(row["task"], row["model"], row["split"]) for row in rows}
    assert len(cells) == len(rows) == 2 * 3
    assert all(row["episodes"] > 2000 for row in rows)
    assert all(0 <= row["recognised"] < row["recognised_real"] < 1 for row in rows if row["shots"] == 4)
    assert "| attention |" in out and "±" in out
    for figure in ("inversion", "characters", "inversion-attention", "inversion-curves"):
        assert (tmp_path / f"demo/{figure}.png").stat().st_size > 5_000


def test_bench(fsgen, refused, tmp_path, monkeypatch):
    monkeypatch.setattr("fsgen.bench.MATRIX", 256)  # 2048 takes a minute in bf16 where it is emulated
    monkeypatch.setattr("fsgen.bench.BATCHES", (1, 2))
    monkeypatch.setattr("fsgen.bench.SAMPLED", {"binary": ((1, 8, 8), 2), "colour": ((3, 8, 8), 256)})
    small = ("--layers", 1, "--colour-layers", 2, "--rounds", 1)
    code, out, error = fsgen("bench", *small, "--json", tmp_path / "bench.json")
    assert code == 0, error
    written = json.loads((tmp_path / "bench.json").read_text())
    assert min(written["median_seconds"].values()) > 0 and min(written["images_per_second"].values()) > 0
    assert {"plain", "meta"} <= written["peak_megabytes"].keys() and "2" in written["sampling_by_batch"]
    assert 0 < written["colour_head_share"] < 1 and written["colour_megabytes_per_image"] > 0
    batches = list(written["colour_largest_batch"].values())
    assert 0 < batches[0] and batches == sorted(batches)
    assert "meta_second_over_first_order" in out
    assert "at least 1" in refused("bench", "--rounds", 0)


def test_ratios_of_bench():
    sampling = {"context": 2, "forward": 1, "sample": 6}  # seconds
    medians = {f"{kind}, {name}": s for kind, s in sampling.items() for name in bench.SAMPLED}
    medians |= {"plain": 2, "plain, contiguous": 4, "meta": 6, "meta, a task at a time": 9}
    medians |= {"meta on nll": 8, "meta on nll, first order": 5}
    medians |= {"matmul, float32": 2, "train 12x64, float32": 4}
    ratios = bench.speed_ratios(medians, layers=3)
    pixels = math.prod(bench.SAMPLED["binary"][0])  # the naive loop's passes
    assert ratios["sampling_speedup"] == (2 + pixels) / 6 and ratios["sampling_over_forward"] == 2
    assert ratios["meta_step_ratio"] == 3 and ratios["meta_step_ratio_contiguous"] == 1.5
    assert ratios["meta_batched_over_loop"] == 1.5 and ratios["meta_second_over_first_order"] == 1.6
    work = bench.multiply_adds(3, *bench.TRAINED["12x64"])  # of a step of 4 s; a product has MATRIX**3 in 2 s
    assert ratios["train_fraction_of_peak"] == pytest.approx(work / bench.MATRIX**3 / 2)
    assert bench.images_per_second(medians)["train 12x64, float32"] == bench.BENCHED / 4


def test_omniglot(fsgen, real, tmp_path):
    real("omniglot")
    small = "--layers 2 --planes 8 --skip 8 --steps 5 --validate 0".split()
    out, results = tmp_path / "run", tmp_path / "results.json"
    code, _, error = fsgen("train", "characters-4shot-attention", *small, "--out", out)
    assert code == 0, error
    code, _, error = fsgen("evaluate", out, "--episodes", 64, "--json", results)
    assert code == 0, error
    test, train = json.loads(results.read_text())
    assert test["data"] == "omniglot" and test["shots"] == 4
    assert test["episodes"] == train["episodes"] == 64
    code, _, error = fsgen("sample", out, "--episodes", 1, "--samples", 1)
    assert code == 0, error
    code, said, _ = fsgen("data")
    assert code == 0 and "omniglot, test: 2,880 images of 144 classes" in said


def test_mistakes_are_answered_by_tyro(fsgen, tmp_path):
    for line, said in (
        (["trian", NAME], "train"),
        (["train", NAME, "--stpes", 3], "Perhaps you meant"),
        (["train", NAME, "--steps", "many"], "--steps"),
        (["train", NAME, "--steps", 0], "steps must be at least 1"),
        (["train", NAME, "--task", "charcters"], "'characters'"),
        (["train", NAME, "--inner-rate", 1], "--inner-rate"),  # no setting of its model
        (["reproduce", "glyphs-4shots"], "'glyphs-4shot'"),
    ):
        code, _, error = fsgen(*line)
        assert code == 2 and said in error and "Traceback" not in error


def test_unknown_names(refused):
    assert f"did you mean {NAME}?" in refused("train", "glyph-inversion-attention")
    assert "name glyphs-inversion-meta" in refused("train", NAME, "--model", "meta")
    twice = ("--model", "attention", "--model=meta")  # the last one counts
    assert "name glyphs-inversion-meta" in refused("train", NAME, *twice)
    assert "Name at least one run folder" in refused("evaluate")
    assert "Name at least one run folder" in refused("sample")


REGISTERS = """
from dataclasses import dataclass
from fsgen import experiments
from fsgen.conditional import ConditionalConfig, ConditionalPixelCNN
from fsgen.datasets import DATA, DataSet
from fsgen.episodes import TASKS, Episode, glyphs

@dataclass(frozen=True)
class MyConfig(ConditionalConfig):
    mine: int = 3  # a setting of its own

class MyPixelCNN(ConditionalPixelCNN):
    config_class = MyConfig

def rotation(data, indices, shots, generator, targets=1):
    target = data.images[indices]
    return Episode(target.flip(-2, -1)[:, None], target)

experiments.MODELS["my-model"] = MyPixelCNN
TASKS["rotation"] = rotation
DATA["my-glyphs"] = DataSet(glyphs)
experiments.LOSSES["mean"] = lambda logits, images: logits.flatten(1).mean(1)
"""


def test_registered_names_are_accepted(run_cli, tmp_path):
    (tmp_path / "my_models.py").write_text(REGISTERS)
    line = ["train", "--import", "my_models", "--model", "my-model", "--mine", 5, "--task", "rotation"]
    line += ["--data", "my-glyphs", "--loss", "mean", "--shots", 1, *TINY, "--steps", 2, "--out", "run"]
    done = run_cli(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["model"], config["mine"], config["task"]) == ("my-model", 5, "rotation")

    done = run_cli("sample", "run", "--import", "my_models", "--episodes", 1, "--samples", 1, cwd=tmp_path)
    assert done.returncode == 0 and "naive" in done.stderr, done.stderr  # it has no fast sampling
    done = run_cli("evaluate", "run", "--episodes", 2, cwd=tmp_path)
    assert done.returncode == 2 and "--import" in done.stderr and "Traceback" not in done.stderr
    done = run_cli("train", "brief-4shot-my-model", "--import=my_models", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--mine" in done.stdout
    assert "rotation" in done.stdout and "my-glyphs" in done.stdout


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--shots", 2], "one support image"),
        (["--size", 4], "8 to 64 pixels"),
        (["--levels", 3], "drawings of 2 levels"),
    ],
)
def test_fields_out_of_range(refused, tmp_path, flags, reason):
    assert reason in refused("train", NAME, *flags, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--layers", 10**9], "layers must be at most 1,000"),
        (["--planes", 10**6], "planes must be at most 65,536"),
        (["--planes", 2**16], "planes in all layers would take at least"),
        (["--planes", 2**16, "--batch", 1, "--accumulate", 1, "--size", 8], "weights would take at least"),
        (["--size", 10**6], "8 to 64 pixels"),
        (["--batch", 10**9], "A batch of 1,000,000,000"),
        (["--shots", 10**9], "shots must be at most 1,000"),
        (["--steps", 10**12], "steps must be at most"),
        (["--seed", 2**64], "seed must be at most"),
        (["--seed", -1], "seed must be at least 0"),
        (["--learning-rate", "inf"], "finite number"),
        (["--learning-rate", 1e39], "finite number"),
        (["--clip", "nan"], "finite number"),
        (["--name", "/etc/x"], "no folder in runs"),
        (["--name", "../x"], "no folder in runs"),
        (["--out", "\udcff"], "isn't UTF-8"),
    ],
)
def test_absurd_flags(fsgen, monkeypatch, tmp_path, flags, reason):
    monkeypatch.chdir(tmp_path)
    code, _, error = fsgen("train", NAME, "--validate", 0, *flags)
    assert code == 2 and "Traceback" not in error
    assert reason in " ".join(error.replace("│", " ").split())  # tyro breaks lines in a box
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line, reason",
    [
        (["evaluate", "RUN", "--episodes", 0], "episodes must be at least 1, not 0"),
        (["evaluate", "RUN", "--episodes", -1], "episodes must be at least 1, not -1"),
        (["evaluate", "RUN", "MISSING"], "MISSING is not there"),
        (["evaluate", "RUN", "--json", "."], "it is a folder"),
        (["evaluate", "RUN", "--json", "RUN/config.json/x"], "config.json is no folder"),
        (["evaluate", "RUN", "--root", "/"], "read from no root"),
        (["sample", "RUN", "--seed", 2**64], "below 2**64"),
        (["sample", "RUN", "--episodes", 10**12], "rows and 5 columns is too large"),
        (["sample", "RUN", "--samples", 10**9], "1 rows and 1,000,000,002 columns is too large"),
        (["sample", "RUN", "RUN"], "named twice"),
        (["sample", "RUN", "--out", "RUN/config.json"], "config.json is no folder"),
        (["data", "--json", "."], "it is a folder"),
        (["data", "--download", ""], "can't be downloaded"),
    ],
)
def test_refused_before_the_work(refused, tiny_run, monkeypatch, line, reason):
    def work(*_):
        raise AssertionError("it has begun")

    for name in ("evaluate", "sample_sheet", "describe"):
        monkeypatch.setattr(cli, name, work)
    if line[0] == "sample" and "--episodes" not in line:
        line = [*line, "--episodes", 1]
    assert reason in refused(*(str(word).replace("RUN", str(tiny_run)) for word in line))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_full_memory(refused, tiny_run, monkeypatch, error):
    def fill(*_):
        raise error

    monkeypatch.setattr(cli, "evaluate", fill)
    assert refused("evaluate", tiny_run) == f"fsgen: {cli.FULL}"


def put_squares(folder, shade):
    "Five classes of three photographs."
    for k in range(15):
        path = folder / f"{'abcde'[k % 5]}/{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 10), (shade, 17 * k, 0)).save(path)


def test_where_the_data_are(fsgen, refused, monkeypatch, tmp_path):
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FSGEN_CACHE", str(tmp_path / "cache"))
    for place, shade in (("here/photos.v1", 0), ("here/photos.v2", 200), ("there/photos.v1", 255)):
        put_squares(tmp_path / place, shade)
    monkeypatch.chdir(tmp_path / "here")
    line = "--data folder --task products --levels 2 --shots 1 --steps 1".split() + TINY
    for name in ("v1", "v2"):
        code, _, error = fsgen("train", *line, "--root", f"photos.{name}/", "--out", f"lr-0.{name}/same")
        assert code == 0, error
    few = ["--episodes", 2, "--json", tmp_path / "results.json"]
    code, out, error = fsgen("evaluate", "lr-0.v1/same", "lr-0.v2/same", *few)
    assert code == 0 and "different test episodes" in out and "trained on other" not in error
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["data"] for row in rows] == ["photos.v1"] * 2 + ["photos.v2"] * 2
    assert len({row["images"] for row in rows}) == 4 and rows[0]["run"] == "lr-0.v1/same"
    assert cli.table(rows).splitlines()[-1].count(" | 0.") == 4

    monkeypatch.chdir(tmp_path / "there")  # the same name is another set
    run = "../here/lr-0.v1/same"
    code, out, error = fsgen("evaluate", run, run, *few)
    assert code == 0 and f"{run} was trained on other images" in error and "paired" not in out
    assert not json.loads((tmp_path / "results.json").read_text())[0]["same_data"]
    code, out, error = fsgen("evaluate", run, "--root", "../here/photos.v1", *few)
    assert code == 0 and "other images" not in error

    shared = shutil.copy(f"{run}/weights.safetensors", tmp_path / "shared.safetensors")
    assert "photos.v1" in refused("evaluate", shared) and not (tmp_path / "data/photos.v1").exists()
    for root in ("/", "..", "~", "a/b", str(tmp_path / "here/photos.v1")):
        with safe_open(shared, "pt") as file:
            facts = json.loads(file.metadata()["fsgen"])
        facts["experiment"]["root"] = root
        save_file(load_file(shared), shared, {"fsgen": json.dumps(facts)})
        assert "say where the data are by --root" in refused("evaluate", shared)
    code, _, error = fsgen("sample", shared, "--root", "photos.v1", "--episodes", 1, "--samples", 1)
    assert code == 0 and "other images" in error


def test_home_of_another_user(refused):
    user = pwd.getpwall()[0]
    assert cli.at_home(f"--out=~{user.pw_name}/x") == f"--out={user.pw_dir.rstrip('/')}/x"
    assert "a home folder that is not known here" in refused("evaluate", "~no such user/run")


def test_names_on_a_sheet(fsgen, tiny_run, tmp_path):
    runs = [tmp_path / name for name in ("a/$x_$", "a-b/support", "c/support")]
    for run in runs:
        shutil.copytree(tiny_run, run)
    line = ["--episodes", 1, "--samples", 1, "--out", tmp_path / "out"]
    code, _, error = fsgen("sample", *runs, *line)
    assert code == 0, error
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {"samples.png", "1-attention.png", "2-attention.png", "3-attention.png"}


@pytest.mark.parametrize(
    "module, said",
    [
        ("raise SystemExit(0)", "failed with SystemExit"),
        ("from fsgen.experiments import MODELS as R; R['x'] = 3", "= 3, which is no FewShotModel"),
        ("from fsgen.episodes import TASKS as R; R['x'] = 3", "TASKS['x'] = 3, which is no Callable"),
        ("from fsgen.datasets import DATA as R; R['x'] = print", "which is no DataSet"),
        ("from fsgen.experiments import FAMILIES as R; R.clear()", "leaves FAMILIES empty"),
        ("from fsgen.experiments import GROUPS as R; R['x'] = ('no',)", "of tables that there are not: no"),
    ],
)
def test_import_of_no_use(refused, monkeypatch, tmp_path, module, said):
    (tmp_path / "hostile.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    registries = experiments.MODELS, experiments.FAMILIES, experiments.GROUPS, TASKS, DATA
    for registry in registries:  # to be as they were, afterwards
        for name in list(registry):
            monkeypatch.setitem(registry, name, registry[name])
        monkeypatch.setitem(registry, "x", registry[name])
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    assert said in refused("train", "--import", "hostile", "--help")


def test_import_of_a_path(refused):
    said = refused("train", "--import", "./mine.py")
    assert "the name of a module, as in my_models, not './mine.py'" in said


def test_setting_called_as_a_flag(refused, monkeypatch):
    @dataclass(frozen=True)
    class Config(ConditionalConfig):
        out: int = 3

    class Model(ConditionalPixelCNN):
        config_class = Config

    monkeypatch.setitem(experiments.MODELS, "mine", Model)
    assert "can't call a setting out" in refused("train", "--model", "mine")


def test_streams_that_can_t_take_it(command, tiny_run, tmp_path):
    out = tmp_path / "results.json"
    line = " ".join([*map(str, command), f"evaluate {tiny_run} {tiny_run} --episodes 2 --json {out}"])
    odd = {"PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2"}
    for how, code in ((f"{line} 2>&- | head -n 1", 0), (f"{line} > /dev/full", 2)):
        out.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", how], env=os.environ | odd, capture_output=True, text=True
        )
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        assert out.exists() == (code == 0)
        if "head" in how:
            assert "\\xb1" in done.stdout and not done.stderr
    assert "No space left" in done.stderr and "Exception ignored" not in done.stderr
    for how, code in (("--help | true", 0), ("--help > /dev/full", 1)):
        line = ["bash", "-o", "pipefail", "-c", f"{' '.join(map(str, command))} {how}"]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


def test_folder_that_is_no_run(refused, tmp_path):
    "Files of somebody's that are called as a run's stay as they are."
    for name, content in (("metrics.jsonl", '{"epoch": 1, "val": 0.3}'), ("lock", "precious")):
        (tmp_path / name).mkdir()
        file = tmp_path / name / name
        file.write_text(content)
        assert "choose another folder" in refused("train", NAME, *TINY, "--steps", 1, "--out", file.parent)
        assert file.read_text() == content and not (file.parent / "config.json").exists()


def test_run_that_saved_nothing(fsgen, refused, tmp_path):
    "What a training leaves that failed before its first step is no other run."
    out = ["--out", tmp_path / "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsgen.training.loop", lambda *_: check(False, "no step"))
        assert "no step" in refused("train", NAME, *TINY, *out)
    code, _, error = fsgen("train", NAME, *TINY, "--batch", 4, "--steps", 2, *out)
    assert code == 0, error
    assert "holds another run: config.json has steps=2, batch=4" in refused("train", NAME, *TINY, *out)


def test_checkpoints_that_are_gone(refused, tiny_run, tmp_path):
    "Weights of a training that is half done are not trained over."
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for path in RunFolder(run).checkpoints():
        path.unlink()
    model = load(run)
    RunFolder(run).save_weights(model.state_dict(), model.facts | {"steps": 150})
    before = [(run / name).read_bytes() for name in ("weights.safetensors", "metrics.jsonl")]
    line = ["train", NAME, *TINY, "--steps", 200, "--checkpoint-every", 5, "--out", run]
    assert "is of step 150 of 200, and its checkpoint is gone; move it" in refused(*line)
    assert before == [(run / name).read_bytes() for name in ("weights.safetensors", "metrics.jsonl")]


def test_folder_called_as_a_model(fsgen, drawings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "characters").mkdir()
    code, _, error = fsgen("sample", "characters", "--support", drawings[0], "--samples", 1)
    assert code == 0 and (tmp_path / "samples-characters/samples.png").exists(), error


def test_too_few_images(refused, tmp_path):
    error = refused("train", "glyphs-characters-attention", "--targets", 8, "--out", tmp_path / "run")
    assert "8 targets and a support need 9 images of every class" in error
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_finite(refused, tmp_path):
    line = ["train", NAME, *TINY, "--learning-rate", 1e30, "--warmup", 0, "--out", tmp_path / "run"]
    assert "not finite" in refused(*line)
    assert not RunFolder(tmp_path / "run").checkpoints()


def zipped(name):
    "The bytes of a zip with one file."
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, b"hello")
    return content.getvalue()


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "is not in"),
        (b"PK\3\4 cut short", "not a whole zip"),
        (zipped("another/file.txt"), "0 drawings of 0 characters"),
        (zipped("images_background/Latin/character01/0001_01.png"), "1 drawings of 1 characters"),
    ],
)
def test_omniglot_missing_or_wrong(refused, monkeypatch, tmp_path, content, reason):
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path))
    if content is not None:
        for part in OMNIGLOT_PARTS:
            (tmp_path / f"{part}.zip").write_bytes(content)
    assert reason in refused("train", "characters-4shot-attention", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name, data in DATA.items() if data.urls])
def test_download_that_fails(refused, monkeypatch, tmp_path, name):
    monkeypatch.setenv("FSGEN_DATA", str(tmp_path))
    urls = {f"http://127.0.0.1:9/{url.rpartition('/')[2]}": sha256 for url, sha256 in DATA[name].urls.items()}
    monkeypatch.setitem(DATA, name, replace(DATA[name], urls=urls))
    assert "could not be fetched" in refused("data", "--download", name)
    assert not any(path.is_file() and path.name != LOCK for path in tmp_path.rglob("*"))


def test_download_where_a_file_is(refused, monkeypatch, tmp_path):
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("mine")
    monkeypatch.setenv("FSGEN_DATA", str(thesis))
    assert "is a file; FSGEN_DATA must name a folder" in refused("data", "--download", "omniglot")
    assert thesis.read_text() == "mine" and list(tmp_path.iterdir()) == [thesis]


def test_run_folder_of_another_experiment(refused, tiny_run):
    before = {path.name: path.read_bytes() for path in tiny_run.iterdir()}
    error = refused("train", NAME, *TINY, "--steps", 201, "--checkpoint-every", 5, "--out", tiny_run)
    assert "steps=200" in error and "--out" in error
    assert {path.name: path.read_bytes() for path in tiny_run.iterdir()} == before


def test_weights_of_somebody(refused, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file({"w": torch.zeros(3)}, weights)
    before = weights.read_bytes()
    assert "no other file says what was trained" in refused("train", NAME, *TINY, "--out", tmp_path)
    assert weights.read_bytes() == before and not (tmp_path / "config.json").exists()


def test_broken_files(refused, tiny_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in tiny_run.iterdir():
        (run / path.name).write_bytes(path.read_bytes()[:-100])
    (run / "config.json").write_bytes((tiny_run / "config.json").read_bytes())
    (run / "metrics.jsonl").write_bytes((tiny_run / "metrics.jsonl").read_bytes())
    line = ["train", NAME, *TINY, "--steps", 200, "--checkpoint-every", 5, "--out", run]
    assert "is broken (checkpoint-00000200.pt, checkpoint-00000195.pt); move" in refused(*line)
    assert "weights.safetensors is broken" in refused("evaluate", run)
    assert "weights.safetensors is broken" in refused("sample", run)
    assert "is not there" in refused("evaluate", tmp_path)

    larger = ["train", NAME, *TINY, "--planes", 12, "--out", run]
    (run / "config.json").unlink()
    RunFolder(run).checkpoints()[0].write_bytes(RunFolder(tiny_run).checkpoints()[0].read_bytes())
    assert "checkpoint-00000200.pt has steps=200, checkpoint_every=5, planes=8" in refused(*larger)


def test_unwritable_places(refused, tiny_run, tmp_path):
    (tmp_path / "file").touch()
    assert "config.json could not be written" in refused("train", NAME, *TINY, "--out", tmp_path / "file/run")
    error = refused("evaluate", tiny_run, "--episodes", 2, "--json", tmp_path / "file/results.json")
    assert "results.json could not be written" in error
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]

    (tmp_path / "run/weights.safetensors").mkdir(parents=True)  # stands in the way, for root too
    line = ["train", NAME, *TINY, "--steps", 3, "--out", tmp_path / "run"]
    assert "weights.safetensors could not be written" in refused(*line)


@pytest.fixture
def drawings(tmp_path):
    "Five image files: a cross drawn four times, dark on light or light on dark, and a blank page."
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for k, path in enumerate(paths):
        ink, paper = ("black", "white") if k % 2 else ("white", "navy")
        image = Image.new("RGB", (200 + 30 * k, 240), paper)
        if k < 4:
            pen = ImageDraw.Draw(image)
            pen.line([(40, 100), (160, 100 + 4 * k)], ink, 7)
            pen.line([(100, 30), (100 + 4 * k, 190)], ink, 7)
        image.save(path)
    return paths


def test_samples_for_own_drawings(fsgen, drawings, tmp_path):
    line = ["sample", "characters", "--support", *drawings[:3], "--samples", 2, "--png"]
    code, out, error = fsgen(*line, "--out", tmp_path / "out")
    assert code == 0 and not error and "shrunk to 26x26" in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "samples.png", "characters-1.png", "characters-2.png",
    }  # fmt: skip
    with Image.open(tmp_path / "out/characters-1.png") as image:
        assert image.size == (26, 26) and set(image.convert("L").tobytes()) <= {0, 255}


def test_score_of_own_drawing(fsgen, drawings):
    code, out, error = fsgen("score", "characters", drawings[3], "--support", *drawings[:3])
    assert code == 0 and not error
    given, without = (float(line.split(" nats/dim, ")[1].split()[0]) for line in out.splitlines()[1:])
    assert given < without  # the other crosses help
    many = [*drawings[:4], *drawings[:4], drawings[0]]
    code, _, error = fsgen("score", "characters", drawings[3], "--support", *many)
    assert code == 0 and error == "fsgen: trained with 8 supports, given 9.\n"


def test_bad_own_drawings(refused, drawings, tmp_path, monkeypatch):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    turned = Path(__file__).parent.parent / "data/weights/brief-inversion-24-attention.safetensors"
    for model, files, said in (
        ("characters", [tmp_path / "gone.png"], "No such file"),
        ("characters", [text], "is not an image"),
        ("characters", [drawings[4]], "nothing is drawn on it"),
        ("charakters", drawings[:1], "did you mean characters?"),
        (turned, drawings[:2], "give one support, not 2"),
    ):
        assert said in refused("sample", model, "--support", *files, "--out", tmp_path)
    assert "nothing is drawn on it" in refused("score", "characters", drawings[4], "--support", drawings[0])
    assert "--support" in refused("sample", "characters", "--png")
    assert "leave --root out" in refused("sample", "characters", "--support", drawings[0], "--root", tmp_path)
    assert "as in --support a.png" in refused("sample", "characters", "--support")
    bomb = tmp_path / "large.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert "large.png can't be used" in refused("score", "characters", bomb, "--support", drawings[0])
    monkeypatch.setattr("fsgen.datasets.LARGEST_FILE", 100)
    assert "0.png is too large" in refused("sample", "characters", "--support", drawings[0])


def test_a_table_of_seeds_measured_on_other_images_is_refused(fsgen, refused, tmp_path, monkeypatch):
    family = experiments.Family(
        experiments.GLYPHS | dict(size=8, layers=1, planes=3, skip=3, steps=2, batch=2)
    )
    monkeypatch.setitem(experiments.FAMILIES, "tt", family)
    table = experiments.Table("tt", {"no-support": {}}, to="no-support", seeds=1)
    monkeypatch.setitem(experiments.TABLES, "tt", table)
    line = ("reproduce", "tt", "--out", tmp_path, "--seeds")
    assert fsgen(*line, 1)[0] == 0
    path = tmp_path / "tt" / "tt-no-support-0" / cli.MEASURED
    parts = json.loads(path.read_text())
    for part in parts:
        part["row"]["images"] = "of before"
    path.write_text(json.dumps(parts))
    assert "measured on different images" in refused(*line, 2)


def test_an_empty_out_is_refused(refused):
    for out in (("--out", ""), ("--out=",)):
        assert "--out is empty" in refused("train", NAME, *TINY, "--steps", 2, *out)


def test_a_bad_table_of_a_group_is_found_before_a_training(refused, tmp_path, monkeypatch):
    good = experiments.Table("glyphs-4shot", {"no-support": {}}, to="no-support", seeds=1)
    bad = replace(good, rows={"no-support": {}, "oops": {}})
    for name, each in (("good", good), ("bad", bad)):
        monkeypatch.setitem(experiments.TABLES, name, each)
    monkeypatch.setitem(experiments.GROUPS, "both", ("good", "bad"))
    assert "There is no model 'oops'" in refused("reproduce", "both", "--out", tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_run_whose_images_moved_goes_on(fsgen, tmp_path):
    for part in ("here", "there"):
        for k in range(10):
            (tmp_path / part / str(k)).mkdir(parents=True)
            for i in range(3):
                colour = (20 * k, 80 * i, 100)
                Image.new("RGB", (9, 9), colour).save(tmp_path / part / str(k) / f"{i}.png")
    words = "--data folder --task products --size 8 --layers 1 --planes 3 --skip 3 --batch 2".split()
    line = ("train", "custom", *words, "--steps", 4, "--checkpoint-every", 2, "--out", tmp_path / "run")
    assert fsgen(*line, "--root", tmp_path / "here")[0] == 0
    (tmp_path / "run" / "weights.safetensors").unlink()
    shutil.rmtree(tmp_path / "here")
    other = shutil.copytree(tmp_path / "there", tmp_path / "other")
    Image.new("RGB", (9, 9), "white").save(other / "0" / "0.png")
    code, _, error = fsgen(*line, "--root", other)
    assert code == 2 and "The images are not those" in error
    config = tmp_path / "run" / "config.json"
    assert json.loads(config.read_text())["root"] == str(tmp_path / "here")
    config.unlink()
    assert fsgen(*line, "--root", other)[0] == 2 and not config.exists()
    code, _, error = fsgen(*line, "--root", tmp_path / "there")
    assert code == 0, error
    assert json.loads(config.read_text())["root"] == str(tmp_path / "there")
    code, _, error = fsgen("evaluate", tmp_path / "run")
    assert code == 0, error


def test_interrupted_while_torch_is_imported():
    script = """
        import sys, fsgen.__main__
        class Interrupted:
            def find_spec(self, name, *_):
                if name == "torch":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupted())
        sys.argv = ["fsgen", "data"]
        fsgen.__main__.main()
    """
    line = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "fsgen: Stopped.\n")
