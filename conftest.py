"""nbval on notebooks that nbdev_clean has cleaned, without the cells that nbdev_test skips.

Exercises run here with their solutions in, and their checks must then say that all is right.
nbdev_test runs them as they are.
"""

import re
from configparser import ConfigParser
from pathlib import Path

import nbformat

settings = ConfigParser()
settings.read(Path(__file__).with_name("settings.ini"))
flags = "|".join(settings["DEFAULT"]["tst_flags"].split())
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
RIGHT = nbformat.v4.new_output("stream", name="stdout", text="Right.\n")
HEAVY = re.compile(rf"^#\|\s*(eval:\s*false|{flags})\s*$", re.MULTILINE)


def pytest_collection_modifyitems(config, items):
    cells = [item for item in items if hasattr(item, "cell")]
    for item in cells:
        if item.cell.execution_count is None:  # nbval takes a cleaned cell for one never run
            item.cell.outputs = []
    for notebook in {id(item.parent): item.parent.nb for item in cells}.values():
        solve(notebook.cells)
    heavy = [item for item in cells if HEAVY.search(item.cell.source)]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [item for item in items if item not in heavy]


def solve(cells):
    "Put each solution into the cell to edit; the check that follows it must print `Right.` alone."
    for edit, check, text in zip(cells, cells[1:], cells[2:], strict=False):
        if text.cell_type == "markdown" and (solution := SOLUTION.search(text.source)):
            edit.source = solution[1]
            check.outputs, check.execution_count = [RIGHT], 1
