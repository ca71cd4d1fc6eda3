"What holds for the repository as a whole: one configuration, one import order, nothing stale."

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fsgen

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(ROOT.glob("nbs/*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem[0].isdigit()]
PLOTS = ROOT / "nbs/09_plots.ipynb"
BY_HAND = ("__init__.py", "__main__.py")  # of fsgen; notebooks export the other modules
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(code):
    "What `code` prints in a fresh process."
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def imports(source):
    "The dotted name of all that `source` imports; `.x` counts as `fsgen.x`."
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["fsgen" * bool(node.level), node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def cells_of(notebook):
    return json.loads(notebook.read_text())["cells"]


def code_of(notebook):
    "All code of a notebook as one Python source, magics and shell lines made calls."
    transform = TransformerManager().transform_cell
    return "".join(transform("".join(c["source"])) for c in cells_of(notebook) if c["cell_type"] == "code")


# Configuration


def test_the_python_of_the_front_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["nats"].shape == names["each"].shape == (10,)
    assert names["drawn"].shape == (30, 1, 26, 26)


def test_settings_agree():
    ini = ConfigParser()
    ini.read(ROOT / "settings.ini")
    ini, project = ini["DEFAULT"], PROJECT["project"]
    assert ini["lib_name"] == project["name"]
    assert ini["version"] == project["version"] == fsgen.__version__
    assert ini["description"] == project["description"]
    assert ini["author"] == project["authors"][0]["name"]
    assert f">={ini['min_python']}" == project["requires-python"]
    for key, value in PROJECT["tool"]["nbdev"].items():
        text = " ".join(value) if isinstance(value, list) else str(value)
        assert ini[key] == text, key


def test_constraints_satisfy_requirements():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = PROJECT["project"]
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        requirement = Requirement(text)
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, text


def test_actions_are_pinned():
    "By the hash of a commit, as a tag can be moved, and no job may do more than it names."
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    used = re.findall(r"uses: (.+)", workflow)
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used)
    assert "\npermissions: {}" in workflow


# Notebooks and what is made from them


@pytest.fixture(scope="module")
def renewed(tmp_path_factory):
    "A copy of the repository in which nbdev_export and nbdev_clean have just run."
    copy = tmp_path_factory.mktemp("renewed")
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (copy / "fsgen").mkdir()
    for name in BY_HAND:
        shutil.copy(ROOT / "fsgen" / name, copy / "fsgen")
    for command in "nbdev_export", "nbdev_clean":
        subprocess.run([Path(sys.executable).with_name(command)], cwd=copy, check=True)
    return copy


def assert_same(pattern, renewed, remedy):
    here, there = ({path.name: path.read_text() for path in root.glob(pattern)} for root in (ROOT, renewed))
    differ = sorted(name for name in here | there if here.get(name) != there.get(name))
    assert not differ, f"{remedy}, it would change {', '.join(differ)}"


def test_modules_are_exported(renewed):
    assert_same("fsgen/*.py", renewed, "run nbdev_export")


def test_notebooks_are_clean(renewed):
    assert_same("nbs/*.ipynb", renewed, "run nbdev_clean")


def test_readme_is_current():
    readme = runpy.run_path(str(ROOT / "tools/make_readme.py"))["readme"]
    assert (ROOT / "README.md").read_text() == readme(), "run make readme"


def test_model_cards_are_current():
    card = runpy.run_path(str(ROOT / "tools/ship.py"))["card"]
    for path in ROOT.glob("fsgen/weights/*.safetensors"):
        assert path.with_suffix(".md").read_text() == card(path.stem), "run python tools/ship.py"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_small(notebook):
    assert notebook.stat().st_size < 300_000


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_fit_a_screen(notebook):
    "All but exported classes, which stand whole in one cell."
    for cell in cells_of(notebook):
        source = "".join(cell["source"])
        lines = source.splitlines()
        whole_class = re.search(r"\A#\|\s*export", source) and re.search(r"^class ", source, re.MULTILINE)
        if cell["cell_type"] == "code" and not whole_class:
            assert len(lines) <= 35, f"{len(lines)} lines: {lines[1]}"


def minutes_of(cells):
    "To read, at 240 words or 40 lines of code a minute, in fives; and with ten more for each exercise."
    code, text = (
        ["".join(c["source"]) for c in cells if c["cell_type"] == kind] for kind in ("code", "markdown")
    )
    words = sum(len(each.split()) for each in text if not each.startswith("<details>"))
    lines = sum(len(each.splitlines()) for each in code if not re.match(r"#\|\s*(hide|echo: false)", each))
    read = 5 * max(1, round((words / 240 + lines / 40) / 5))
    return f"{read}", f"{read + 10 * sum(each.startswith('### Exercise ') for each in text)}"


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_opening(notebook):
    "What is built, what it needs, and the minutes, which the front page repeats."
    cells = cells_of(notebook)
    text = "".join(next(cell for cell in cells if cell["cell_type"] == "markdown")["source"])
    assert re.match(r"# .+\n\n> .+\n", text) and "Needs: " in text
    minutes = [minutes_of(cells)]
    assert re.findall(r"Time: (\d+) minutes to read, (\d+) with the exercises; ", text) == minutes
    index = "".join("".join(cell["source"]) for cell in cells_of(ROOT / "nbs/index.ipynb"))
    assert re.findall(rf"\({notebook.name}\) \|.*\| (\d+), (\d+) \|", index) == minutes


@pytest.mark.parametrize("notebook", CHAPTERS, ids=lambda path: path.stem)
def test_exercises(notebook):
    "Two or three: a question, a cell to edit, a check that says `Not yet` for now, a folded solution."
    cells = cells_of(notebook)
    asked = [k for k, cell in enumerate(cells) if "".join(cell["source"]).startswith("### Exercise ")]
    assert 2 <= len(asked) <= 3
    for k in asked:
        edit, check, solution = cells[k + 1 : k + 4]
        assert "# edit" in "".join(edit["source"])
        assert "".join(check["outputs"][0]["text"]).startswith("Not yet: ")
        # conftest.py puts it in when nbval runs the notebook, and expects `Right.`
        assert "<summary>Solution</summary>" in "".join(solution["source"])


def test_a_chapter_exports_the_module_of_its_name():
    modules = set()
    for notebook in CHAPTERS:
        exported = re.findall(r"^#\|\s*default_exp (\w+)", code_of(notebook), re.MULTILINE)
        assert exported in ([], [notebook.stem[3:]]), notebook.name
        modules.update(exported)
    assert modules == {path.stem for path in ROOT.glob("fsgen/*.py") if not path.stem.startswith("_")}


def test_chapters_import_only_earlier_chapters():
    "And plots, which imports none, so that every chapter may use it."
    number = {notebook.stem[3:]: int(notebook.stem[:2]) for notebook in CHAPTERS}
    number[PLOTS.stem[3:]] = -1
    for notebook in CHAPTERS:
        for name in imports(code_of(notebook)):
            package, _, rest = name.partition(".")
            if package == "fsgen" and rest:
                assert notebook != PLOTS, f"{notebook.name} imports {name}"
                module = fsgen._MODULE.get(rest, rest.split(".")[0])
                assert number[module] < int(notebook.stem[:2]), f"{notebook.name} imports {name}"


def test_modules_need_no_notebook_tools():
    for module in ROOT.glob("fsgen/*.py"):
        roots = {name.split(".")[0] for name in imports(module.read_text())}
        assert not roots & {"nbdev", "fastcore", "execnb", "IPython"}, module.name


def test_no_path_of_a_machine():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    noise = re.compile(r'https?://\S+|"image/\w+": "[^"]*"|;base64,[\w+/=]*')  # base64 has slashes
    home = re.compile(r"/(home|root|tmp|work|Users)/[\w.]+")
    for name in files.stdout.splitlines():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or deleted and not yet committed
            continue
        found = home.search(noise.sub("", text))
        assert not found, f"{name} holds a path of a machine: {found[0]}"


# The package


def test_import_is_light():
    heavy = "{'torch', 'numpy', 'matplotlib', 'PIL'}"
    assert python(f"import sys, fsgen; print({heavy} & set(sys.modules) or 'light')") == "light"


@pytest.mark.parametrize("name", fsgen.__all__)
def test_name_is_offered(name):
    assert getattr(fsgen, name) is not None


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="'fsgen' has no attribute 'nothing'"):
        _ = fsgen.nothing
