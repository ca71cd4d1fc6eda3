"The wheel alone, away from the checkout: it imports, loads the small model by its name and samples."

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import fsgen, torch
model = fsgen.load("characters")
support = torch.zeros(1, 2, *model.shape, dtype=torch.uint8)
support[..., 13, 4:22] = 1
drawn = fsgen.sample(model, support, 1, torch.Generator().manual_seed(0))
print(fsgen.__file__, tuple(drawn.shape))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "A folder with nothing but the wheel; torch and the others are this environment's, no network is asked."
    root = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "fsgen", root / "source/fsgen", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "source")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", *quiet, "--no-build-isolation", "-w", root, root / "source"]
    subprocess.run(build, check=True)
    (wheel,) = root.glob("*.whl")
    subprocess.run([*pip, "install", *quiet, "--target", root / "installed", wheel], check=True)
    return root / "installed"


def run(installed, *args):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    line = [sys.executable, *args]
    return subprocess.run(line, cwd=installed.parent, env=environment, capture_output=True, text=True)


def test_wheel_loads_its_model_and_samples(installed):
    done = run(installed, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1) == [str(installed / "fsgen/__init__.py"), "(1, 1, 26, 26)\n"]


def test_wheel_has_a_card_for_each_model_and_the_command(installed):
    weights, cards = (
        {path.stem for path in installed.glob(f"fsgen/weights/*.{end}")} for end in ("safetensors", "md")
    )
    assert "characters-copying" in weights and weights == cards
    done = run(installed, "-m", "fsgen", "demo", "--help")
    assert done.returncode == 0 and "--out" in done.stdout, done.stderr
