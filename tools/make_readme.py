"Make README.md from nbs/index.ipynb, as its cells and their stored outputs stand."

import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent


def has(cell, directive):
    return re.search(rf"^#\|\s*{directive}\s*$", cell.source, re.MULTILINE)


def read(path: Path) -> nbformat.NotebookNode:
    "A notebook without its `#| hide` cells, the code of its `#| echo: false` cells and directives."
    nb = nbformat.read(path, as_version=4)
    nb.metadata.language_info = {"name": "python"}  # for code blocks; nbdev_clean drops it
    nb.cells = [cell for cell in nb.cells if not has(cell, "hide")]
    for cell in nb.cells:
        if has(cell, "echo: false"):
            cell.metadata.transient = {"remove_source": True}
        cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE)
    return nb


def readme() -> str:
    text, resources = MarkdownExporter().from_notebook_node(read(ROOT / "nbs/index.ipynb"))
    if resources["outputs"]:
        raise SystemExit("nbs/index.ipynb: README.md can't hold a picture; link to one in data/.")
    text = re.sub(r'(\]\(|src="|href=")\.\./', r"\1", text)
    text = re.sub(r'(\]\(|href=")(?=[\w-]+\.ipynb)', r"\1nbs/", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
