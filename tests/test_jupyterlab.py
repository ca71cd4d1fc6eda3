"""Chapters as a reader has them: in JupyterLab, all cells run, then a slider moved, or strokes drawn.

What the browser showed last is kept in _proc/jupyterlab/CHAPTER.png, of a failure, too.
"""

import json
import os
import runpy
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = ROOT / "_proc/jupyterlab"
GRACE = 30  # seconds for the server to stop by itself
TIMEOUT = 600  # seconds: a chapter takes one minute, or some on a busy machine
HEAVY = runpy.run_path(str(ROOT / "tools/make_outputs.py"))["HEAVY"]  # cells that the tests skip
# JupyterLab shows an exception as it shows what was written to standard error
RED = '[data-mime-type="application/vnd.jupyter.stderr"]'
# whether a canvas has a pixel of red, green, blue and alpha such that
HAS_PIXEL = """(canvas => {
    const {width, height} = canvas, levels = canvas.getContext("2d").getImageData(0, 0, width, height).data
    return [...Array(width * height).keys()].map(k => levels.slice(4 * k, 4 * k + 4))
})(arguments[0]).some(([r, g, b, a]) => """
LOOP = [(0, 0), (70, -50), (0, -110), (-70, -50), (0, 0)]
TAIL = [(0, 0), (0, 100), (80, 100)]
SETTINGS = {
    # a notebook that is windowed has only those cells in the page that are on the screen
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="module")
def browser():
    "Chromium without a window. Skip if it isn't there, fail if FSGEN_REQUIRE_BROWSER=1."
    if not (driver := shutil.which("chromedriver")):
        why = "no chromedriver: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("FSGEN_REQUIRE_BROWSER") == "1" else pytest.skip)(why)
    options = webdriver.ChromeOptions()
    for flag in "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage":
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1400,1400")
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as chrome:
        yield chrome


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab's address of a chapter, `{0}`. It serves a copy and runs this checkout's fsgen."
    root = tmp_path_factory.mktemp("lab")
    nbs, config, token = root / "nbs", root / "config", secrets.token_hex()
    shutil.copytree(ROOT / "data", root / "data", ignore=shutil.ignore_patterns("cache"))
    shutil.copytree(ROOT / "nbs", nbs, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    for path in nbs.glob("*.ipynb"):
        nb = nbformat.read(path, as_version=4)
        nb.cells = [cell for cell in nb.cells if not HEAVY.search(cell.source)]
        nbformat.write(nb, path)
    for name, values in SETTINGS.items():
        path = config / f"lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    mine = {"PYTHONPATH": ROOT, "JUPYTER_CONFIG_DIR": config, "JUPYTER_TOKEN": token}
    mine |= {"JUPYTER_DATA_DIR": root / "share", "IPYTHONDIR": root / "ipython"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.expose_app_in_browser=True"]
    with open(root / "log", "w") as log:
        environment = os.environ | {key: str(value) for key, value in mine.items()}
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + TIMEOUT
        while socket.socket().connect_ex(("localhost", port)):
            assert server.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.2)
        yield f"http://localhost:{port}/lab/workspaces/{{0}}/tree/nbs/{{0}}.ipynb?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(GRACE)
        except subprocess.TimeoutExpired:  # seen once; kernels end when their server is gone
            server.kill()
            server.wait()


def test_slider_redraws_figure(browser, lab):
    with opened(browser, lab, "01_masks"):  # the quickest of those with a slider
        move_slider(browser)


def test_strokes_are_answered(browser, lab):
    with opened(browser, lab, "24_play"):
        draw_signs(browser)


@contextmanager
def opened(browser, lab, chapter):
    "A chapter, all cells run. What it shows at the end is kept, from its first red output on."
    try:
        browser.get(lab.format(chapter))
        run_all_cells(browser)
        yield
        assert not texts(browser, RED)
    finally:
        show = "?.scrollIntoView({block: 'center'})"
        browser.execute_script(f"document.querySelector('{RED}'){show}")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(SCREENSHOTS / f"{chapter}.png"))


def run_all_cells(browser):
    context = "window.jupyterapp?.shell.currentWidget?.sessionContext"
    wait(browser, "a kernel", f"{context}?.session?.kernel?.status === 'idle'")
    run = "jupyterapp.commands.execute('notebook:run-all-cells')"
    browser.execute_script(run + ".finally(() => { window.allHaveRun = true })")
    wait(browser, "all cells", "window.allHaveRun")
    assert not texts(browser, RED)
    prompts = texts(browser, ".jp-CodeCell .jp-InputPrompt")
    assert prompts == [f"[{count}]:" for count in range(1, len(prompts) + 1)]


def move_slider(browser):
    "Move the first slider of the notebook by one key, until the figure below it is another."
    slider = wait(browser, "a slider", "document.querySelector('.widget-interact .noUi-handle')")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
    figure = "arguments[0].closest('.widget-interact').querySelector('img')?.src"
    before = wait(browser, "a figure", figure, slider)
    last = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    slider.send_keys(Keys.ARROW_LEFT if last else Keys.ARROW_RIGHT)
    other = f"![undefined, arguments[1]].includes({figure}) || document.querySelector('{RED}')"
    wait(browser, "another figure", other, slider, before)


def draw_signs(browser):
    "Draw a sign twice, and point at a sample until the page shows where it looks."
    canvases = "[...document.querySelectorAll('.jp-OutputArea canvas')]"
    paper, support, samples = wait(browser, "the page", f"{canvases}.length === 3 && {canvases}")
    browser.execute_script("arguments[0].closest('.jp-OutputArea').scrollIntoView()", paper)
    for said in "Draw A once more", "nats given its 1 other":
        browser.find_element("xpath", "//button[text()='next drawing']").click()  # the first sheet is empty
        draw_strokes(browser, paper, LOOP, TAIL)  # what answers the loop alone is dropped
        lines = "[...document.querySelectorAll('.widget-html')]"
        heard = f"{lines}.some(line => line.textContent.includes(arguments[0]))"
        wait(browser, said, f"{heard} || document.querySelector('{RED}')", said)
    assert browser.execute_script(f"return {HAS_PIXEL} a && r + g + b === 0)", samples)
    ActionChains(browser).move_to_element_with_offset(samples, -160, -60).perform()  # in the first of them
    red = f"{HAS_PIXEL} a && r > g + 50) || document.querySelector('{RED}')"
    wait(browser, "red on the support set", red, support)


def draw_strokes(browser, paper, *strokes):
    "By the pointer; points are pixels from the middle of the paper."
    pen = ActionChains(browser, duration=20)
    for first, *rest in strokes:
        pen.move_to_element_with_offset(paper, *first).click_and_hold()
        for point in rest:
            pen.move_to_element_with_offset(paper, *point)
        pen.release()
    pen.perform()


def wait(browser, what, script, *arguments):
    "The value of `script` as soon as it isn't nothing."
    ready = WebDriverWait(browser, TIMEOUT)
    return ready.until(lambda _: browser.execute_script(f"return {script}", *arguments), f"waited for {what}")


def texts(browser, selector):
    "The text of all that matches, also where it is scrolled out of sight."
    script = "return [...document.querySelectorAll(arguments[0])].map(x => x.textContent.trim())"
    return browser.execute_script(script, selector)
