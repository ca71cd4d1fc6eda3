"The site: a page of each notebook that is whole by itself."

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.stem for path in ROOT.glob("nbs/*.ipynb"))


def make_site(*args, root=ROOT):
    command = [sys.executable, root / "tools/make_site.py", *args]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    run = make_site(site)
    assert run.returncode == 0, run.stderr
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in site.glob("*.html")}


def test_every_notebook_has_a_page(pages):
    assert sorted(path.stem for path in pages) == NOTEBOOKS
    for page in pages.values():
        assert [Path(link["href"]).stem for link in page.select("nav li > a")][1:] == NOTEBOOKS[:-1]


def test_links_lead_somewhere(pages):
    ids = {path: {tag["id"] for tag in page(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        for tag in [*page(href=True), *page(src=True)]:
            name, _, anchor = (tag.get("href") or tag["src"]).partition("#")
            if not re.match(r"\w+:", name):
                target = path.parent / name if name else path
                assert target.is_file(), f"{path.name}: {name}"
                assert not anchor or anchor in ids[target], f"{path.name}: {name}#{anchor}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        assert not page("script") and not page("iframe") and not page("link"), path.name
        assert not re.search(r"@import|url\(", " ".join(style.text for style in page("style")))
        for tag in page(src=True):
            assert not tag["src"].startswith(("http", "//")), f"{path.name}: {tag['src']}"


def test_equations_and_directives_are_gone(pages):
    for path, page in pages.items():
        assert "\\" not in "".join(math.text for math in page("math")), path.name
        assert all(len(tag(True, recursive=False)) == 2 for tag in page(["msub", "msup", "mfrac"]))
        assert not re.search(r"^#\|", page.text, re.MULTILINE), path.name


def test_every_stored_picture_is_shown_and_has_a_text(pages):
    for path, page in pages.items():
        nb = nbformat.read(ROOT / f"nbs/{path.stem}.ipynb", as_version=4)
        outputs = [out for cell in nb.cells for out in cell.get("outputs", [])]
        stored = sum(any("image/" in kind for kind in out.get("data", {})) for out in outputs)
        shown = page.select("main svg, main p > img[src^='data:image/png']")
        assert len(shown) == stored, path.name
        assert all(image["alt"] for image in page("img")), path.name
        assert all(svg["aria-label"] for svg in page.main("svg")), path.name
        assert all(drawing.text for drawing in page("svg")), path.name


def test_dead_link_is_refused(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "nbs").mkdir()
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A\n[b](b.ipynb)")])
    nbformat.write(nb, tmp_path / "nbs/index.ipynb")
    run = make_site(root=tmp_path)
    assert run.returncode == 1
    assert run.stderr == "index.ipynb: a link to b.ipynb, which isn't there\n"
