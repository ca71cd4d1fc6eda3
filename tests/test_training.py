"Training in real processes: several that share a batch, and one that is killed again and again."

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fsgen.experiments import LOSSES, MODELS, Experiment, read_data
from fsgen.likelihood import InputError
from fsgen.runs import RunFolder
from fsgen.training import train

TINY = Experiment().vary(
    name="glyphs-inversion-attention", task="inversion", shots=1, size=10,
    layers=1, planes=4, skip=4, summary_size=8, patch_planes=4,
    steps=12, batch=8, warmup=2, ema=0.9, checkpoint_every=6, validate=10,
)  # fmt: skip
RUNS = {model: TINY.vary(model=model) for model in MODELS}
COPYING = dict(model="copying", value="error")
RUNS["characters"] = TINY.vary(task="characters", shots=2, targets=3, accumulate=2, **COPYING)
SCRIPT = """
import json, sys
from fsgen.experiments import Experiment
from fsgen.training import train
for out, fields in json.loads(sys.argv[1]).items():
    assert train(Experiment.from_record(fields), out).facts["steps"] == fields["steps"]
"""


def launched(*args):
    "Two processes of `accelerate launch`; on the CPU, as no GPU is shown to them."
    accelerate = Path(sys.executable).with_name("accelerate")
    line = [accelerate, "launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", 0, *args]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*map(str, line)], env=environment, text=True, **pipes)


def flags(experiment):
    "The experiment as flags of the command line."
    default = Experiment(model=experiment.model).record()
    changed = {k: v for k, v in experiment.record().items() if v != default[k]}
    return [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", value)]


# A bias of the keys adds the same to the scores of all of them, which a softmax doesn't see: its gradient is
# nothing but rounding, and Adam makes whole steps of it.
ROUNDING = ("key.norm.bias", "key.linear.bias")


def assert_same_up_to_rounding(run, experiment, reference):
    "A run has the loss curve and the weights of one process that computes the whole batch at once."
    train(experiment.vary(accumulate=1), reference)
    for line, wanted in zip(RunFolder(run).metrics(), RunFolder(reference).metrics(), strict=True):
        for key in ("step", "loss", "gradient_norm", "test"):
            assert line.get(key, 0) == pytest.approx(wanted.get(key, 0), rel=1e-5), (run, key)
    weights = load_file(run / "weights.safetensors")
    for name, wanted in load_file(reference / "weights.safetensors").items():
        if name not in ROUNDING:
            torch.testing.assert_close(weights[name], wanted, rtol=0, atol=1e-4)


def assert_same_bits(run, reference):
    "The weights of two runs are equal."
    weights, wanted = (load_file(path / "weights.safetensors") for path in (run, reference))
    assert all(weights[name].equal(wanted[name]) for name in wanted)


def test_two_processes_compute_the_batch_of_one(tmp_path):
    "The last run's batch can't be shared: it is refused, which ends the script."
    (tmp_path / "script.py").write_text(SCRIPT)
    runs = RUNS | {"refused": TINY.vary(accumulate=8)}
    records = {str(tmp_path / name): experiment.record() for name, experiment in runs.items()}
    process = launched(tmp_path / "script.py", json.dumps(records))
    _, error = process.communicate(timeout=120)
    assert process.returncode != 0 and "can't be cut into equal parts for processes=2" in error, error
    assert not (tmp_path / "refused").exists()
    for name, experiment in RUNS.items():
        assert_same_up_to_rounding(tmp_path / name, experiment, tmp_path / f"{name}-alone")


def test_two_processes_stop_together_and_go_on(tmp_path):
    out, experiment = tmp_path / "run", TINY.vary(steps=200, checkpoint_every=200)
    line = ["-m", "fsgen", "train", TINY.name, *flags(experiment), "--out", out]
    process = launched(*line)
    while process.poll() is None and not RunFolder(out).metrics():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert "saved in" in error, error
    (saved,) = RunFolder(out).checkpoints()
    assert RunFolder(out).metrics()[-1]["step"] == int(saved.stem.rpartition("-")[2]) < 200

    process = launched(*line)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert said.count("step 200") == 1  # by the main process alone


def test_killed_at_random_moments(tmp_path):
    experiment, moments = TINY.vary(steps=400, checkpoint_every=7, validate=0), random.Random(0)
    splits, out = read_data(experiment), tmp_path / "killed"
    train(experiment, tmp_path / "whole", splits)
    processes = get_context("forkserver")
    processes.set_forkserver_preload(["fsgen.training"])
    for step in sorted(moments.sample(range(350), 8)):
        process = processes.Process(target=train, args=(experiment, out, splits))
        process.start()
        while process.is_alive() and (RunFolder(out).metrics() or [{"step": 0}])[-1]["step"] < step:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(RunFolder(out).checkpoints()) <= 3
    train(experiment, out, splits)
    assert_same_bits(out, tmp_path / "whole")


@pytest.mark.parametrize("spoil", [torch.Tensor.detach, torch.Tensor.long])
def test_loss_without_gradient(tmp_path, monkeypatch, spoil):
    nll = LOSSES["nll"]
    monkeypatch.setitem(LOSSES, "nll", lambda logits, images: spoil(nll(logits, images)))
    with pytest.raises(InputError, match="The loss has no gradient: detached, or rounded to integers"):
        train(TINY, tmp_path / "run")


def test_buffer_that_is_not_finite(tmp_path, monkeypatch):
    "Refused before the first step, by its name, and nothing is saved."

    class Masked(MODELS["conditional"]):
        def __init__(self, *args):
            super().__init__(*args)
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    monkeypatch.setitem(MODELS, "masked", Masked)
    with pytest.raises(InputError, match="mask of the model masked is not finite before training"):
        train(TINY.vary(model="masked"), tmp_path)
    folder = RunFolder(tmp_path)
    assert not folder.checkpoints() and not folder.weights.exists()


def test_checkpoint_cut_short(tmp_path, capsys):
    for name in ("whole", "cut"):
        train(TINY, tmp_path / name)
    newest, before = RunFolder(tmp_path / "cut").checkpoints()
    os.truncate(newest, newest.stat().st_size // 2)
    (tmp_path / "cut/weights.safetensors").unlink()
    train(TINY, tmp_path / "cut")
    assert f"{newest.name} is broken; going on from {before.name}." in capsys.readouterr().err
    assert_same_bits(tmp_path / "cut", tmp_path / "whole")
    assert RunFolder(tmp_path / "cut").checkpoints() == [newest, before]


def test_one_owner_whose_terminal_is_closed(tmp_path):
    "Suspended it still owns the folder; then it saves and ends, though nobody hears it any more."
    out, experiment = tmp_path / "run", TINY.vary(steps=10**6, checkpoint_every=10**6, validate=0)
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "fsgen", "train", TINY.name, *flags(experiment), "--out", out]
    start = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    process = subprocess.Popen([*map(str, line)], stdout=writing, stderr=writing, preexec_fn=start)
    os.close(writing)
    while process.poll() is None and not RunFolder(out).metrics():
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    before = {path: path.stat().st_ino for path in out.iterdir()}
    with pytest.raises(InputError, match=f"{out} is being trained by process {process.pid} on "):
        train(experiment, out)
    assert {path: path.stat().st_ino for path in out.iterdir()} == before
    for number in (signal.SIGHUP, signal.SIGCONT):
        process.send_signal(number)
    assert process.wait(120) == 130
    assert RunFolder(out).state()["step"] == RunFolder(out).metrics()[-1]["step"]
    assert (out / "lock").read_bytes() == b""
