"The power fails: what a run has saved is on the disk by then, whole."

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fsgen.experiments import Experiment
from fsgen.runs import RunFolder, load
from fsgen.training import Run, train

TINY = Experiment().vary(
    task="inversion", shots=1, size=10, model="conditional", layers=1, planes=4, skip=4, summary_size=8,
    steps=9, batch=2, warmup=2, checkpoint_every=3, validate=0,
)  # fmt: skip


@pytest.fixture
def mounted(tmp_path):
    "Call with an image of a file system: the folder where it is mounted until the test ends."
    folders = []

    def mount(image):
        folder = tmp_path / f"mounted-{image.name}"
        folder.mkdir()
        done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no loop device can be mounted here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", folder], check=True)


def test_what_is_on_the_disk_when_the_power_fails(mounted, monkeypatch, tmp_path):
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("only root can mount a file system, made by mkfs.ext4")
    image, take_step = tmp_path / "disk", Run.take_step
    image.touch()
    os.truncate(image, 32 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    disk = mounted(image)

    def photographed(run, episode):  # the image as it would be after a loss of power before this step
        subprocess.run(["cp", "--sparse=always", image, tmp_path / f"lost-{run.step}"], check=True)
        return take_step(run, episode)

    monkeypatch.setattr(Run, "take_step", photographed)
    train(TINY, disk / "runs/run")
    monkeypatch.undo()
    for step in (3, 5, 8):
        out = mounted(tmp_path / f"lost-{step}") / "runs/run"
        saved = step - step % 3
        assert RunFolder(out).state()["step"] == load(out).facts["steps"] == saved
        assert [line["step"] for line in RunFolder(out).metrics()][-1] == saved
        assert RunFolder(out).open(TINY)["step"] == saved
    resumed, whole = train(TINY, out).state_dict(), load(disk / "runs/run").state_dict()
    assert all(resumed[name].equal(value) for name, value in whole.items())


def test_all_is_forced_to_the_disk(monkeypatch, tmp_path):
    "A file before it takes its name, then the name; and the metrics before the checkpoint of their step."
    out, done, fsync, replace = tmp_path / "runs/run", [], os.fsync, os.replace

    def noted_fsync(handle):
        done.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def noted_replace(part, path):
        assert ("fsync", part.stat().st_ino) in done
        replace(part, path)
        done.append(("replace", Path(path).name))

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    train(TINY, out)
    names = ["config.json", "metrics.jsonl"]
    names += [name for k in (3, 6, 9) for name in ("weights.safetensors", f"checkpoint-{k:08}.pt")]
    assert [name for what, name in done if what == "replace"] == names
    folder, log, above = (path.stat().st_ino for path in (out, out / "metrics.jsonl", tmp_path))
    assert ("fsync", above) in done  # where `runs` was made
    for place, (what, name) in enumerate(done):
        if what == "replace":
            assert done[place + 1] == ("fsync", folder)
            if name == "weights.safetensors":
                assert done[place - 2] == ("fsync", log)
