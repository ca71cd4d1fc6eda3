"""Make the site: python tools/make_site.py [FOLDER]

A static page of each notebook, with the outputs that are stored in it. The pages load nothing from
elsewhere: equations become MathML. A link that leads nowhere within the site is an error.
"""

import re
import shutil
import sys
from functools import partial
from pathlib import Path

from bs4 import BeautifulSoup
from latex2mathml.converter import convert
from make_readme import ROOT, read
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

NBS = ROOT / "nbs"
UNBROKEN = {  # within what, what is to stay on one line
    r"<code>.*?</code>": r"(?<=[ >])--?\w[\w-]*",  # a flag
    r"<td.*?</td>": r"[-+\d.%]+ ±\s[\d.%]+|\[[-+\d., ]*\]",  # a figure with its error; an interval
    r".*": r'[^\w\s<>;]*<math [^>]*"inline".*?</math>[^\w\s<>&]*',  # an equation with the marks beside it
}


class Renderer(IPythonRenderer):
    def inline_math(self, body):
        return mathml(body)

    def block_math(self, body):
        return f'<span class="math">{mathml(body, display="block")}</span>'

    def latex_environment(self, name, body):
        return self.block_math(rf"\begin{{{name}}}{body}\end{{{name}}}")


def mathml(latex: str, **options) -> str:
    "An equation, with TeX's spaces: none in an index, at a bar or behind a sign, a thin one behind log."
    math = BeautifulSoup(convert(latex, **options), "html.parser")
    indices = math.select(":is(msub, msup, msubsup, munder, munderover) > * + *")
    tight = [part for index in indices for part in [index, *index("mo")]]
    for operator in tight + math("mo", string=["|", "‖"]):
        operator["lspace"] = operator["rspace"] = "0"
    for sign in math("mo", string=["−", "+"]):
        before = sign.find_previous_sibling()
        if before and before.text in "([⌈⌊=,":
            sign["form"] = "prefix"
    for name in math("mi", string=re.compile(r"\w\w")):
        if name.parent.name in ("msub", "msup", "msubsup") and not name.find_previous_sibling():
            name = name.parent  # log_2: a third part would be no index
        after = name.find_next_sibling()
        if after and after.name in ("mi", "mn", "msub", "msup", "mfrac"):
            name.insert_after(math.new_tag("mspace", width="0.17em"))
    return str(math)


def markdown2html(source: str) -> str:
    html = MarkdownWithMath(Renderer(escape=False)).render(source).replace("± ", "±\N{NO-BREAK SPACE}")
    for within, part in UNBROKEN.items():
        mark = partial(re.sub, part, r'<span class="unbroken">\g<0></span>')
        html = re.sub(within, lambda found, mark=mark: mark(found[0]), html, flags=re.DOTALL)
    return html


def make(site: Path):
    code = {name: HtmlFormatter(style=name).get_style_defs() for name in ("default", "github-dark")}
    template = ROOT / "tools/site.html.j2"
    exporter = HTMLExporter(template_file=str(template), filters={"markdown2html": markdown2html})
    paths = [NBS / "index.ipynb", *sorted(NBS.glob("[0-9]*.ipynb"))]
    notebooks = {path: read(path) for path in paths}
    chapters = [(path.stem, title(path, nb)) for path, nb in notebooks.items()]
    pages = {}
    for here, (path, nb) in enumerate(notebooks.items()):
        html, _ = exporter.from_notebook_node(nb, {"chapters": chapters, "here": here, "code": code})
        pages[path] = page = BeautifulSoup(html, "html.parser")
        sections = page.select_one(".sections")
        for heading in page.main("h2"):
            text = heading.text.removesuffix("¶")
            sections.append(page.new_tag("a", href=f"#{heading['id']}", string=text))
        for figure in [*page.main("img", alt=""), *page.main("svg")]:
            text = figure.find_previous(re.compile("h[1-6]")).text.removesuffix("¶")
            label = f"Figure of the section {text}; the text beside it says what it shows"
            figure.attrs |= {"alt": label} if figure.name == "img" else {"role": "img", "aria-label": label}
    site.mkdir(parents=True, exist_ok=True)
    anchors = {path: {tag["id"] for tag in page(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        for tag in [*page(href=True), *page(src=True)]:
            follow(tag, path, anchors, site)
        (site / f"{path.stem}.html").write_text(str(page), encoding="utf-8")


def title(path, nb):
    "The number of a chapter and its first heading."
    heading = re.search(r"^# (.*)", "\n".join(cell.source for cell in nb.cells), re.MULTILINE)[1]
    return " ".join([*re.findall(r"^\d+", path.stem), heading])


def follow(tag, path, anchors, site):
    "Make a link of the notebook at `path` one of its page; what it links to, a part of the site."
    attribute = "href" if tag.has_attr("href") else "src"
    name, mark, anchor = tag[attribute].partition("#")
    if re.match(r"\w+:", name):  # https:, data:
        return
    target = (path.parent / name).resolve() if name else path
    if target in anchors:
        tag[attribute] = target.with_suffix(".html").name + mark + anchor
        found = not anchor or anchor in anchors[target]
    elif found := target.is_file():
        tag[attribute] = name.removeprefix("../")
        copy = site / tag[attribute]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, copy)
    if not found:
        raise SystemExit(f"{path.name}: a link to {name + mark + anchor}, which isn't there")


if __name__ == "__main__":
    site = Path(sys.argv[1] if sys.argv[1:] else ROOT / "_docs")
    make(site)
    print(f"{site}/index.html")
