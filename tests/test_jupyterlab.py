"""Sliders in a real JupyterLab in Chromium: what a reader does with them, by keyboard, and what the notebook keeps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from browser import NEEDS_CHROMIUM, Page, driver, narrow, widen  # noqa: F401
from selenium.webdriver.common.keys import Keys

import powersteer as ps

pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
pytest.importorskip("anywidget", reason="anywidget is not installed")
pytestmark = NEEDS_CHROMIUM

PROMPT = "Q: 12*3\nA:"
CELLS = [
    f"import powersteer as ps, threading\nmodel, prompt = ps.load('demo', threads=2), {PROMPT!r}\n"
    "vectors = [v.relative(x) for v, x in zip(model.jacobian(prompt, 1, 3).svd(k=2).vectors, (0.5, 0.0))]",
    "play = model.play(prompt, vectors)\nplay",
]
LAST = (
    "print('strengths', [round(v.scale / v.site_norm, 2) for v in play.vectors], "
    "[t.name for t in threading.enumerate() if 'play' in t.name])"
)
SLIDERS, PLAIN, STEERED = ".ps-play input", ".ps-play .text:first-child .words", ".ps-play .text:last-child .words"
DONE = (
    "return !!document.querySelector('.ps-play .text:not(.busy) .words') && !document.querySelector('.ps-play .busy')"
)
TEXT = "const n = document.querySelector(arguments[0]); return n && n.textContent"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(folder, address) of a JupyterLab whose kernels use this checkout."""
    nbformat = pytest.importorskip("nbformat")
    home = tmp_path_factory.mktemp("jupyter")
    cells = [nbformat.v4.new_code_cell(text) for text in (*CELLS, LAST)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), home / "play.ipynb")
    ours = Path(ps.__file__).parents[1]
    env = {
        **os.environ,
        "PYTHONPATH": str(ours),
        "HOME": str(home),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "IPYTHONDIR": str(home),
    }
    words = [
        "--no-browser", "--port=0", "--allow-root", "--ip=127.0.0.1", "--expose-app-in-browser", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={home}", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *words], env=env, stderr=log, cwd=home)
    try:
        page = Page(None, "")
        found = page.until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", (home / "log").read_text()), 60)
        yield home, found[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def page(server, driver):  # noqa: F811
    """The notebook after its first two cells ran."""
    page = Page(driver, f"{server[1]}lab/tree/play.ipynb?reset")
    driver.get(page.url)
    page.until(lambda: "Idle" in (page.js(TEXT, "#jp-main-statusbar") or ""), 60)
    command(page, "notebook:run-all-cells")
    page.until(lambda: page.js(DONE), 60)
    yield page
    assert [
        entry for entry in driver.get_log("browser") if "ps-play" in entry["message"] or "anywidget" in entry["message"]
    ] == []


def command(page, name, **options):
    page.js("return window.jupyterapp.commands.execute(arguments[0], arguments[1])", name, options)


def press(page, slider, keys):
    """Press keys on a slider; wait for the complete answer."""
    before = page.js(TEXT, ".ps-play .status")
    page.all(SLIDERS)[slider].send_keys(keys)
    page.until(lambda: page.js(TEXT, ".ps-play .status") != before, 30)
    page.until(lambda: page.js(DONE), 30)


def vectors(model, *strengths):
    found = [v.relative(x) for v, x in zip(model.jacobian(PROMPT, 1, 3).svd(k=2).vectors, strengths, strict=True)]
    return [v for v in found if v.scale]


def test_a_slider_moves_the_text(page):
    model = ps.load("demo", threads=2)
    plain, steered = page.js(TEXT, PLAIN), page.js(TEXT, STEERED)
    assert plain == model.generate(PROMPT).text
    assert steered == model.steered(vectors(model, 0.5, 0.0)).generate(PROMPT).text != plain
    press(page, 0, Keys.HOME)  # to -1
    press(page, 1, Keys.END)  # to 1
    assert page.js(TEXT, PLAIN) == plain
    assert page.js(TEXT, STEERED) == model.steered(vectors(model, -1.0, 1.0)).generate(PROMPT).text
    mark = page.js(TEXT, STEERED + " mark")
    assert mark and page.js(TEXT, STEERED).endswith(mark)
    kl = float(ps.evaluate.kl(model, PROMPT, [vectors(model, -1.0, 1.0)])[0])
    assert f"KL {kl:.3g} nats at the prompt's end" in page.js(TEXT, ".ps-play .status")
    assert page.rows(".ps-play table")[0][0] == '" It"'
    assert page.texts(".ps-play output") == ["−1.00", "+1.00"]


def test_only_the_last_of_many_moves_is_answered(page):
    press(page, 0, Keys.ARROW_RIGHT * 30)
    page.until(lambda: page.texts(".ps-play output")[0] == "−0.70")
    page.until(lambda: page.js(DONE))
    model = ps.load("demo", threads=2)
    expected = model.steered(vectors(model, -0.7, 1.0)).generate(PROMPT).text
    page.until(lambda: page.js(TEXT, STEERED) == expected)
    command(page, "notebook:move-cursor-down")  # to the last cell
    command(page, "notebook:run-cell")
    page.until(lambda: "strengths [-0.7, 1.0] []" in page.js(TEXT, ".jp-Notebook"))


def test_every_part_has_a_name_and_the_answer_is_read_aloud(page):
    labels = page.each(SLIDERS, "n.labels[0].textContent")
    assert labels == [f"blocks.1.hook_mlp_out, rank {i} (krylov)" for i in (0, 1)]
    assert page.each(SLIDERS, "n.getAttribute('aria-valuetext')")[1] == "+1.00 times the activation's norm"
    assert page.js(TEXT, STEERED) in page.js(TEXT, ".ps-play [aria-live=polite]")


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_readable_in_both_themes(page, theme):
    """Contrast of every text with the notebook behind it, by the formula of WCAG 2."""
    page.js("return window.jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]})", theme)
    page.until(lambda: page.js("return document.body.dataset.jpThemeName") == theme)
    page.settle()
    worst = page.js("""
        const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const pixel = (...colours) => {
          paint.clearRect(0, 0, 1, 1);
          for (const c of colours) { paint.fillStyle = c; paint.fillRect(0, 0, 1, 1); }
          const [r, g, b] = Array.from(paint.getImageData(0, 0, 1, 1).data.slice(0, 3), (v) => {
            const x = v / 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const page = getComputedStyle(document.querySelector(".jp-Notebook")).backgroundColor;
        return Math.min(...Array.from(document.querySelectorAll(".ps-play :is(label, output, p, h4, th, td, mark)"), (n) => {
          const style = getComputedStyle(n);
          const [a, b] = [pixel(page, style.backgroundColor), pixel(page, style.backgroundColor, style.color)].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }));""")
    assert worst > 4.5


def test_fits_a_narrow_page(page):
    narrow(page, 400)
    page.js("return window.jupyterapp.commands.execute('application:toggle-left-area')")
    try:
        page.until(lambda: page.js("return document.querySelector('.ps-play').clientWidth > 150"))
        assert page.js("const n = document.querySelector('.ps-play'); return n.scrollWidth <= n.clientWidth")
        left = page.each(".ps-play .text", "Math.round(n.getBoundingClientRect().left)")
        assert left[0] == left[1]  # one below the other
    finally:
        widen(page)


def test_the_notebook_keeps_a_picture(page, server):
    command(page, "docmanager:save")
    text = page.until(
        lambda: (server[0] / "play.ipynb").read_text() if "text/html" in (server[0] / "play.ipynb").read_text() else ""
    )
    import nbformat

    (bundle,) = [o["data"] for o in nbformat.reads(text, 4).cells[1].outputs]
    model = ps.load("demo", threads=2)
    picture = re.sub("<[^>]*>", "", bundle["text/html"])
    for wanted in (model.generate(PROMPT).text, model.steered(vectors(model, 0.5, 0.0)).generate(PROMPT).text, "nats"):
        assert wanted in unescape(picture)
