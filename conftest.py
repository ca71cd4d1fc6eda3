"""nbval on notebooks that nbdev_clean has cleaned, without the cells that nbdev_test skips.

Each exercise runs twice: as shipped, and with its solution in, when its check must say that all is right.
"""

import re
import runpy
from pathlib import Path

import nbformat

HEAVY = runpy.run_path(str(Path(__file__).with_name("tools") / "make_outputs.py"))["HEAVY"]
SOLUTION = re.compile(r"<summary>Solution</summary>\s*```python\n(.*?)```", re.DOTALL)
RIGHT = nbformat.v4.new_output("stream", name="stdout", text="Right.\n")


def pytest_collection_modifyitems(config, items):
    cells = [item for item in items if hasattr(item, "cell")]
    for item in cells:
        if item.cell.execution_count is None:  # nbval takes a cleaned cell for one never run
            item.cell.outputs = []
    heavy = [item for item in cells if HEAVY.search(item.cell.source)]
    config.hook.pytest_deselected(items=heavy)
    after = {}  # the items to run after an item
    for notebook in {id(item.parent): item.parent.nb for item in cells}.values():
        after |= solved(notebook.cells, {id(item.cell): item for item in cells})
    items[:] = [more for item in items if item not in heavy for more in (item, *after.get(item, ()))]


def solved(cells, items):
    "After each exercise's check: its solution, and the check again, which must print `Right.`"
    after = {}
    for edit, check, text in zip(cells, cells[1:], cells[2:], strict=False):
        solution = text.cell_type == "markdown" and SOLUTION.search(text.source)
        if solution and id(check) in items:  # not so if another cell was chosen on the command line
            edited, checked = items.get(id(edit)), items[id(check)]
            after[checked] = [
                again(edited or checked, source=solution[1]),
                again(checked, outputs=[RIGHT], execution_count=1),
            ]
    return after


def again(item, **changes):
    "Another run of a notebook's cell, with changes."
    cell = nbformat.from_dict(item.cell | changes)
    name = f"{item.name}, solved"
    return type(item).from_parent(
        item.parent, name=name, cell_num=item.cell_num, cell=cell, options=item.options
    )
