"""A report in a real browser, for tests: Chromium without a window, driven as a reader would, with mouse and with keys."""

from __future__ import annotations

import math
import re
import shutil
import time
from statistics import mean

import atlas_pages
import pytest

from powersteer.report import page as report
from powersteer.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
NEEDS_CHROMIUM = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and its chromedriver are not installed")

DATA = atlas_pages.page(n_layers=6, n_prompts=2, k=4, words=30)
START = {"view": 0, "source": 0, "target": 1, "vector": 0, "measure": "sigma", "rank": 0, "sign": "both", "scale": 0.35,
         "prompt": "mean", "against": "none", "colours": "auto", "compare": "", "compareView": 0, "comparePrompt": "mean"}  # fmt: skip
BEGINNING = "KL at the prompt's end, rank 0, larger of both signs, scale 0.35, mean over prompts"
NO_CHARTS = "window.Plotly = {react: async (place) => { place.removeAllListeners = place.on = () => {}; }};"
RENDERED = "return document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6"


class Page:
    """The open report and what a reader does to it."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, fact, seconds=15):
        """The value of fact() once it is true. A failure shows what it was last."""
        end = time.monotonic() + seconds
        while not (value := fact()):
            assert time.monotonic() < end, f"still {value!r} after {seconds} s"
            time.sleep(0.02)
        return value

    def open(self, fragment=""):
        self.driver.get("about:blank")  # a new fragment alone would not load the page again
        self.driver.get(self.url + fragment)
        self.until(lambda: self.js("return document.querySelectorAll('#table tbody tr').length"))

    def show(self, **words):
        """Go to a state by the fragment, everything else as at the start."""
        self.js("location.hash = arguments[0]", "&".join(f"{k}={v}" for k, v in {**START, **words}.items()))
        self.settle()

    def settle(self):
        """Past the pause after which the slower parts are drawn."""
        self.driver.execute_async_script("const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => setTimeout(done)), 40)")

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def texts(self, selector):
        return self.each(selector, "n.textContent")

    def each(self, selector, what):
        """what(n) of every element n."""
        return self.js(f"return Array.from(document.querySelectorAll(arguments[0]), (n) => {what})", selector)

    def lines(self, figure):
        """The y values of every trace of a chart."""
        return self.js("return document.querySelector(arguments[0] + ' .chart').data.map((d) => Array.from(d.y))", figure)

    def rows(self, table):
        return self.each(f"{table} tbody tr", "Array.from(n.cells, (c) => c.textContent)")

    def pick(self, picker, value):
        Select(self.one(f"#pick-{picker}")).select_by_value(str(value))
        self.settle()

    def keys(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()
        self.settle()

    def fragment(self):
        return dict(word.split("=") for word in self.js("return location.hash").lstrip("#").split("&"))

    def labels(self):
        """What the map says of every pair, by (source, target)."""
        found = {}
        for label in self.each("#grid td", "n.ariaLabel"):
            source, target, said = re.fullmatch(r"Layer (\d+) → (?:layer (\d+)|next token): (.*)", label).groups()
            found[int(source), atlas_pages.NEXT if target is None else int(target)] = said
        return found

    def media(self, scheme="light", kind="screen"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})
        self.settle()


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1300,900"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def write(driver, tmp_path_factory):
    """write(data, charts): a Page of page data; without charts plotly's script, which takes seconds, is left out."""

    def write(data, charts=True):
        path = tmp_path_factory.mktemp("report") / "atlas.html"
        with pytest.MonkeyPatch.context() as patch:
            if not charts:
                patch.setattr(report, "_plotly", lambda: NO_CHARTS)
            write_report(data, path)
        return Page(driver, path.as_uri())

    return write


def visited(page, ready="return true"):
    """The page at its start; whatever a test does to it, the console stays empty."""
    if not page.js("return location.href").startswith(page.url):
        page.open()
    page.show()
    page.until(lambda: page.js(ready))
    yield page
    assert page.driver.get_log("browser") == []


@pytest.fixture(scope="module")
def quick(write):
    return write(DATA, charts=False)


@pytest.fixture(scope="module")
def whole(write):
    return write(DATA)


@pytest.fixture
def page(quick):
    yield from visited(quick)


@pytest.fixture
def charted(whole):
    yield from visited(whole, RENDERED)


def number(text):
    return float(text.split(",")[0].replace("−", "-"))


def near(text, value):
    """Whether a text shows a value, to the digits that it has."""
    return math.isclose(number(text), value, rel_tol=0.051 if len(text.strip("−0.")) < 3 or "e" in text else 0.006, abs_tol=1e-9)


def cells(view=0):
    return {(c["source"], c["target"]): c for c in DATA["views"][view]["cells"]}


def effect(field, source, target, rank, scale, sign, prompts=(0, 1), view=0, kind="effects"):
    """Mean over prompts of an effect of one vector, as the page should have it."""
    wanted = {"source": source, "target": target, "rank": rank, "scale": scale, "sign": sign}
    found = [
        e[field] for e in DATA["views"][view][kind]
        if e["prompt"] in prompts and all(e[name] == value for name, value in wanted.items())
    ]  # fmt: skip
    return mean(x for x in found if x is not None and math.isfinite(x))


def focused(page):
    return page.driver.switch_to.active_element


def table(page):
    return page.rows("#table")


def enter(page, selector, text):
    node = page.one(selector)
    node.clear()
    node.send_keys(text, Keys.ENTER)
    page.settle()


def narrow(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.settle()


def widen(page):
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.settle()
