"Run notebooks and store their outputs: python tools/make_outputs.py 06 07 (all chapters if none is named)."

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
settings = ConfigParser()
settings.read(ROOT / "settings.ini")
flags = "|".join(settings["DEFAULT"]["tst_flags"].split())
HEAVY = re.compile(rf"^#\|\s*(eval:\s*false|{flags})\s*$", re.MULTILINE)  # cells that nbdev_test skips
WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path):
    "Run a notebook's cells; those that the tests skip keep the outputs they have."
    nb = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(NBS)}}
    client = NotebookClient(nb, timeout=1200, coalesce_streams=True, resources=where)
    with client.setup_kernel():
        for index, cell in enumerate(nb.cells):
            if cell.cell_type == "code" and not HEAVY.search(cell.source):
                client.execute_cell(cell, index)
                # a widget lives in a kernel: stored, it would be an empty line on every page
                cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
    nb.metadata.pop("widgets", None)
    nbformat.write(nb, path)


if __name__ == "__main__":
    for path in sorted(NBS.glob("*.ipynb")):
        if not sys.argv[1:] or path.name.startswith(tuple(sys.argv[1:])):
            print(path.stem, flush=True)
            run(path)
    subprocess.run([Path(sys.executable).with_name("nbdev_clean")], cwd=ROOT, check=True)
