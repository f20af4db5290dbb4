"""The report in a real browser: Chromium without a window, driven as a reader would, with mouse and with keys."""

from __future__ import annotations

import ast
import base64
import json
import math
import re
import shutil
import time
from itertools import takewhile
from statistics import mean, median

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
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and its chromedriver are not installed")

DATA = atlas_pages.page(n_layers=6, n_prompts=2, k=4, words=30)
START = {"view": 0, "source": 0, "target": 1, "vector": 0, "measure": "sigma", "rank": 0, "sign": "both", "scale": 0.35,
         "prompt": "mean", "against": "none", "colours": "auto", "compare": "", "compareView": 0, "comparePrompt": "mean"}  # fmt: skip
NO_CHARTS = "window.Plotly = {react: async (place) => { place.removeAllListeners = place.on = () => {}; }};"
CHANGE = "const n = document.getElementById(arguments[0]); n.value = arguments[1]; n.dispatchEvent(new Event('change'))"
CHOSEN = "return [document.getElementById(arguments[0]).value, document.querySelectorAll('#grid td.value').length]"
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


# ---- the map and its pickers


def test_html_in_the_data_is_text(page):
    assert page.text("#prompt-text") == atlas_pages.HOSTILE
    assert not page.js("return window.hacked") and not page.all("main img, main i, #texts script")
    assert page.one("#pick-view option[value='1']").text == "prompt 0 alone <i>"
    assert "prompt 0 <b>bold</b>" in page.one("#text-prompt").text
    assert atlas_pages.HOSTILE in page.texts("#about details p")


def test_the_map_says_what_the_data_say(page):
    found, known = page.labels(), cells()
    assert len(found) == len(DATA["sources"]) * len(DATA["targets"])
    for pair, said in found.items():
        if pair in known:
            assert near(said, known[pair]["sigma"][0]) and ("not converged" in said) != known[pair]["converged"]
        else:
            assert said == ("no such pair" if pair[1] != atlas_pages.NEXT and pair[1] <= pair[0] else "not computed")


def test_pickers_of_the_spectrum(page):
    of = {"sigma": lambda c: c["sigma"][2], "decay": lambda c: c["sigma"][2] / c["sigma"][0], "residual": lambda c: c["residuals"][2]}
    page.pick("rank", 2)
    for measure, value in of.items():
        page.pick("measure", measure)
        said = page.labels()
        assert all(near(said[pair], value(cell)) for pair, cell in cells().items())
        assert page.fragment()["measure"] == measure
    page.pick("rank", "max")
    assert all(near(page.labels()[pair], max(c["residuals"])) for pair, c in cells().items())
    page.pick("view", 2)
    assert all(near(page.labels()[pair], max(c["residuals"])) for pair, c in cells(2).items())


def test_pickers_of_effects(page):
    pair = 1, 4
    for picker, value in (("measure", "kl_continuation"), ("rank", 1), ("sign", -1), ("scale", 1)):
        page.pick(picker, value)
    assert near(page.labels()[pair], effect("kl_continuation", *pair, 1, 1.0, -1))
    page.pick("prompt", 1)
    assert near(page.labels()[pair], effect("kl_continuation", *pair, 1, 1.0, -1, [1]))
    assert page.text("#map-title") == "KL along the continuation, rank 1, along −v, scale 1, prompt 1"
    page.pick("against", "random")
    draws = [effect("kl_continuation", 1, "random", draw, 1.0, -1, [1], kind="random") for draw in range(4)]
    assert near(page.labels()[pair], effect("kl_continuation", *pair, 1, 1.0, -1, [1]) - median(draws))
    page.pick("against", "none")
    page.pick("sign", 0)
    assert near(page.labels()[pair], max(effect("kl_continuation", *pair, 1, 1.0, sign, [1]) for sign in (1, -1)))
    last = DATA["views"][0]["cells"][-1]
    assert page.labels()[last["source"], last["target"]].startswith("not measured")


def test_signs_of_logits_are_arbitrary(page):
    """The larger of both signs is held against the larger of both of random vectors by size, not by sign."""

    def moved(*place, kind="effects"):
        both = [mean(e["logit_change"]["yes"] for e in found(*place, sign, kind)) for sign in (1, -1)]
        return max(both, key=abs)

    def found(source, target, rank, sign, kind):
        wanted = {"source": source, "target": target, "rank": rank, "scale": 1.0, "sign": sign}
        return [e for e in DATA["views"][0][kind] if all(e[name] == value for name, value in wanted.items())]

    page.show(measure="logit:yes", scale=1, against="random")
    said = page.labels()
    for source, target in list(cells())[:-1]:
        x, typical = moved(source, target, 0), median(abs(moved(source, "random", draw, kind="random")) for draw in range(4))
        assert near(said[source, target], math.copysign(1, x) * (abs(x) - typical))


def test_every_option_of_every_picker(page):
    page.pick("measure", "kl_end")
    for picker in [node.get_attribute("id")[5:] for node in page.all("#pickers select")]:
        for value in [o.get_attribute("value") for o in Select(page.one(f"#pick-{picker}")).options]:
            page.js(CHANGE, f"pick-{picker}", value)
            if picker == "view":  # is unpacked first
                page.settle()
            chosen, coloured = page.js(CHOSEN, f"pick-{picker}")
            assert chosen == value and coloured > 0, (picker, value)
    page.settle()
    assert page.one("#pick-measure").get_attribute("value") == page.fragment()["measure"].replace("%3A", ":").replace("+", " ")


def test_colours(page):
    def background(s, t):
        return page.one(f"td[data-s='{s}'][data-t='{t}']").value_of_css_property("background-color")

    layers = {pair: c["sigma"][0] for pair, c in cells().items() if pair[1] != atlas_pages.NEXT}
    low, high = min(layers, key=layers.get), max(layers, key=layers.get)
    assert background(low[0], low[1] - 1) == "rgba(0, 34, 78, 1)" and background(high[0], high[1] - 1) == "rgba(254, 232, 56, 1)"
    assert len(page.all("#legend .bar")) == 2  # the next token has its own unit
    middle = next(pair for pair in layers if pair not in (low, high))
    before = background(middle[0], middle[1] - 1)
    page.pick("colours", "log")
    assert background(middle[0], middle[1] - 1) != before and "logarithmic" in page.text("#legend")


# ---- from a cell to a continuation


# What is not marked of the two sides of a pair
UNMARKED = """return Array.from(arguments[0].querySelectorAll('.text'), (side) =>
  Array.from(side.childNodes).filter((n) => n.nodeType === 3).map((n) => n.data).join(''))"""


def test_differences_are_marked(page):
    page.show(source=2, target=5, vector=1)
    page.until(lambda: page.all("#texts ins"))
    for pair in page.all("#texts .pair"):
        base, steered = page.js(UNMARKED, pair)
        whole = [node.text.split() for node in pair.find_elements(By.CSS_SELECTOR, ".text")]
        shared = " ".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*whole, strict=True)))
        assert base == steered and base.startswith(shared) and (base != whole[0] or whole[0] == whole[1])


def test_random_texts(page):
    page.show(source=3, target=4, prompt=1, sign="-", scale=1)
    page.one("#random-texts summary").click()
    page.until(lambda: len(page.all("#random-texts .pair")) == 4)
    wanted = [e["text"] for e in DATA["views"][0]["random"] if (e["source"], e["prompt"], e["scale"], e["sign"]) == (3, 1, 1.0, -1)]
    assert page.texts("#random-texts .sides > div:last-child .text") == wanted
    page.one("#random-texts summary").click()


def test_python_is_copied_and_runs(page):
    page.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    page.show(view=1, source=1, target="next_token", vector=3, scale=1, sign="-")
    page.until(lambda: "next_token" in page.text("#python"))
    page.one("#copy-python").click()
    page.until(lambda: page.text("#copy-python") == "Copied")
    code = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert code == page.text("#python")
    assert '(-atlas.prompt(0).vector(1, "next_token", 3)).relative(1)' in code and "max_new_tokens=30" in code
    prompt = next(node for node in ast.parse(code).body if isinstance(node, ast.Assign) and node.targets[0].id == "prompt")
    assert ast.literal_eval(prompt.value) == atlas_pages.HOSTILE
    page.one("#copy-link").click()
    page.until(lambda: page.text("#copy-link") == "Copied")
    link = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    page.until(lambda: page.text("#copy-link") == "Copy link")
    page.open(link.removeprefix(page.url))
    assert page.text("#vector-title") == "Vector layer 1 → next token, rank 3" and page.fragment()["view"] == "1"


# ---- links

BEGINNING = "KL at the prompt's end, rank 0, larger of both signs, scale 0.35, mean over prompts"


def test_link_to_a_cell(page):
    page.open("#source=2&target=next_token&vector=1&measure=kl_end&scale=1&sign=-&prompt=1")
    assert page.text("#cell-title") == "Layer 2 → next token" and page.text("#vector-title").endswith("rank 1")
    assert page.text("#map-title") == "KL at the prompt's end, rank 0, along −v, scale 1, prompt 1"
    page.js("location.hash = 'source=0&target=5'")
    page.until(lambda: page.text("#cell-title") == "Layer 0 → layer 5")


@pytest.mark.parametrize(
    "fragment",
    ["#", "#source=99&target=x&vector=99&measure=nothing&scale=7", "#view=9&rank=-1&prompt=5&sign=%3Cscript%3E", "#%", "#vectors"],
)
def test_links_that_fit_nothing(page, fragment):
    page.open(fragment)
    assert page.text("#map-title") == BEGINNING and page.js("return document.querySelector('#problem').hidden")
    assert page.one("#notice").is_displayed() == ("=" in fragment) and not page.all("#notice *")
    for word in ("source “99”", "target “x”", "vector “99”", "measure “nothing”", "scale “7”") if "nothing" in fragment else ():
        assert word in page.text("#notice")


def test_a_pair_that_is_not_there(page):
    missing = next(pair for pair, said in page.labels().items() if said == "not computed")
    page.show(source=missing[0], target=missing[1])
    assert "not been computed" in page.text("#cell-facts") and not page.one("#vector").is_displayed()
    page.show(source=0, target=2)
    assert page.one("#vector").is_displayed() and page.one("#spectrum").is_displayed()


# ---- by keyboard


def focused(page):
    return page.driver.switch_to.active_element


def test_keys_from_the_top_to_a_continuation(page):
    page.open("#source=0&target=1")
    page.keys(Keys.TAB)
    assert focused(page).text == "Skip to the map"
    page.keys(Keys.ENTER)
    page.keys(Keys.TAB)
    assert focused(page).get_attribute("role") == "gridcell"
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert page.text("#cell-title") == "Layer 1 → layer 3" and focused(page).get_attribute("aria-selected") == "true"
    page.until(lambda: "Layer 1 → layer 3" in page.text("#live"))
    page.keys(Keys.ENTER)
    assert focused(page).get_attribute("aria-label") == "Vector of rank 0"
    page.keys(Keys.TAB)
    page.keys(Keys.ENTER)
    page.until(lambda: focused(page).get_attribute("id") == "vector-title")
    assert page.text("#vector-title") == "Vector layer 1 → layer 3, rank 1"
    for _ in range(30):
        page.keys(Keys.TAB)
        if "sign" in (focused(page).get_attribute("class") or ""):
            break
    page.keys(Keys.ENTER)
    page.until(lambda: page.fragment()["sign"] == "%2B")
    assert "sign" in focused(page).get_attribute("class"), "the focus stays where it was"
    page.keys(Keys.ESCAPE)
    assert focused(page).get_attribute("data-s") == "1" and focused(page).get_attribute("role") == "gridcell"


def test_arrows_stop_at_the_edge_and_leap_over_gaps(page):
    page.show(source=1, target=2)
    page.js("document.querySelector('td[aria-selected]').focus()")
    for key, place in (
        (Keys.ARROW_LEFT, (1, 2)), (Keys.END, (1, "next_token")), (Keys.HOME, (1, 2)), (Keys.ARROW_UP, (0, 2)),
        (Keys.PAGE_DOWN, (1, 2)), (Keys.ARROW_DOWN, (1, 2)), (Keys.END, (1, "next_token")), (Keys.PAGE_DOWN, (4, "next_token")),
        (Keys.ARROW_RIGHT, (4, "next_token")), (Keys.PAGE_UP, (0, "next_token")),
    ):  # fmt: skip
        page.keys(key)
        assert (page.fragment()["source"], page.fragment()["target"]) == tuple(map(str, place)), key


def test_everything_has_a_name_for_a_screen_reader(page):
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    wanted = {"button", "combobox", "searchbox", "gridcell", "grid", "table", "region", "columnheader", "rowheader"}
    nodes = [n for n in tree if not n["ignored"] and n["role"]["value"] in wanted]
    assert {n["role"]["value"] for n in nodes} == wanted
    assert not [n["role"]["value"] for n in nodes if not n.get("name", {}).get("value")]
    assert all(". " in label for label in page.each(".chart", "n.ariaLabel"))


# ---- the table


def table(page):
    return page.rows("#table")


def enter(page, selector, text):
    node = page.one(selector)
    node.clear()
    node.send_keys(text, Keys.ENTER)
    page.settle()


def test_sort(page):
    assert [row[:3] for row in table(page)] == [
        [str(s), str(t).replace("_", " "), str(r)]
        for _, s, t, r in sorted((-x, s, t, r) for (s, t), c in cells().items() if t != atlas_pages.NEXT for r, x in enumerate(c["sigma"]))
    ][: len(table(page))]
    column = page.texts("#table thead th").index("Perplexity")
    for direction in ("descending", "ascending"):
        page.one("#table [data-column=perplexity]").click()
        shown = [number(row[column]) for row in table(page)]
        assert shown == sorted(shown, reverse=direction == "descending") and len(shown) == 25
        assert page.one("#table [aria-sort]").get_attribute("aria-sort") == direction
        assert focused(page).get_attribute("data-column") == "perplexity"
    page.one("#next").click()
    assert page.text("#pages").startswith("26–50 of") and number(table(page)[0][column]) >= shown[-1]
    page.one("#previous").click()
    page.one("#table [data-column=target]").click()
    assert table(page)[0][1] == "1"
    page.one("#table [data-column=target]").click()
    assert table(page)[0][1] == "next token"
    page.one("#table [data-column=sigma]").click()


def test_filter(page):
    enter(page, "#filter", "source>=2 target!=next_token rank<2 kl_end>0.05")
    kl = {
        (s, t, r): max(effect("kl_end", s, t, r, 0.35, sign) for sign in (1, -1))
        for s, t in list(cells())[:-1] if s >= 2 and t != atlas_pages.NEXT for r in range(2)
    }  # fmt: skip
    assert {tuple(map(int, row[:3])) for row in table(page)} == {place for place, x in kl.items() if x > 0.05}
    enter(page, "#filter", "target=next_token")
    assert {row[1] for row in table(page)} == {"next token"}
    enter(page, "#filter", "colour=red")
    assert "not understood" in page.text("#filter-note") and page.one("#filter").get_attribute("aria-invalid")
    enter(page, "#filter", "")
    some = DATA["views"][0]["effects"][40]
    phrase = " ".join(some["text"].split()[-4:])
    enter(page, "#contains", phrase.upper())
    want = {(e["source"], e["target"], e["rank"]) for e in DATA["views"][0]["effects"] if phrase in e["text"]}
    page.until(lambda: len(table(page)) == len(want))
    assert {tuple(row[:3]) for row in table(page)} == {tuple(str(x).replace("_", " ") for x in place) for place in want}
    enter(page, "#contains", "<script>")
    page.until(lambda: page.text("#pages") == "no vectors")
    enter(page, "#contains", "")
    page.until(lambda: len(table(page)) == 25)


def test_a_row_opens_its_vector(page):
    row = table(page)[7]
    page.all("#table tbody tr")[7].click()
    page.until(lambda: page.fragment()["source"] == row[0] and page.fragment()["vector"] == row[2])
    target = row[1] if row[1] == "next token" else f"layer {row[1]}"
    assert page.text("#vector-title") == f"Vector layer {row[0]} → {target}, rank {row[2]}"
    assert page.all("#table tbody tr")[7].get_attribute("aria-current") == "true"
    page.until(lambda: focused(page).get_attribute("id") == "vector-title")


# ---- how it looks

# [text, colour, background] of every element with text of its own that is seen
SEEN = """return Array.from(document.querySelectorAll('body *')).filter((n) =>
    n.checkVisibility() && !n.closest('svg, .sr, .skip, :disabled, select') && parseFloat(getComputedStyle(n).fontSize) > 0
    && Array.from(n.childNodes).some((c) => c.nodeType === 3 && c.data.trim()))
  .map((n) => {
    let at = n, back;
    do { back = getComputedStyle(at).backgroundColor; at = at.parentElement; } while (at && /, 0\\)|transparent/.test(back));
    return [n.textContent.trim().slice(0, 40), getComputedStyle(n).color, back];
  })"""


def contrast(one, other):
    """By WCAG; 4.5 is what small text needs."""

    def light(colour):
        rgb = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
        return sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(page, scheme):
    page.media(scheme)
    page.show(source=1, target=4, vector=1, measure="logit:yes", against="random")
    page.until(lambda: page.all("#texts ins"))
    seen = page.js(SEEN)
    faint = {(text, front, back, round(contrast(front, back), 1)) for text, front, back in seen if contrast(front, back) < 4.5}
    page.media()
    assert len(seen) > 300 and not faint


def narrow(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.settle()


def widen(page):
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    page.settle()


@pytest.mark.parametrize("width", [390, 700])
def test_narrow_screens(page, width):
    narrow(page, width)
    wide = page.js("return document.documentElement.scrollWidth")
    page.media(kind="print")
    printed = page.js("return document.documentElement.scrollWidth")
    page.media()
    widen(page)
    assert wide <= width and (printed <= width or width < 700)  # paper is about 700 wide


def test_without_effects(write, driver):
    bare = atlas_pages.page(n_layers=3, n_prompts=1, k=2, words=0)
    bare["views"] = [{**view, "effects": [], "random": []} for view in bare["views"]]
    page = write({**bare, "scales": [], "signs": []}, charts=False)
    page.open()
    page.one("td[data-s='1'][data-t='1']").click()
    page.until(lambda: page.text("#cell-title") == "Layer 1 → layer 2")
    page.settle()
    assert "No effects were recorded" in page.text("#texts") and not page.one("#effect-pickers select").is_displayed()
    assert not page.one("#cell-effects").is_displayed() and "undefined" not in page.js("return location.hash")
    assert page.text("#python").endswith("vec = atlas.vector(1, 2, 0)")
    assert driver.get_log("browser") == []


def test_views_that_hold_less(write, driver):
    views = [DATA["views"][0], {**DATA["views"][1], "random": []}, {**DATA["views"][2], "effects": [], "random": []}]
    page = write({**DATA, "views": views}, charts=False)
    page.open("#measure=kl_end&against=random&prompt=1&source=1&target=4")
    page.pick("view", 1)
    assert page.fragment()["against"] == "none" and page.fragment()["prompt"] == "mean"
    assert near(page.labels()[1, 4], max(effect("kl_end", 1, 4, 0, 0.35, sign, [0], view=1) for sign in (1, -1)))
    page.pick("view", 2)
    assert near(page.labels()[1, 4], cells(2)[1, 4]["sigma"][0]) and "No effects" in page.text("#texts")
    page.pick("view", 0)
    assert page.one("#pick-measure").get_attribute("value") == "kl_end"
    assert driver.get_log("browser") == []


# ---- what a reader may write into the filter

def vectors():
    """(source, target, rank) -> what the table says of every vector of the first view."""
    moved = {}
    for e in DATA["views"][0]["effects"]:
        if e["scale"] == 0.35:
            place = e["source"], e["target"], e["rank"], e["sign"]
            moved.setdefault(place, []).append((e["kl_end"], e["logit_change"][" no"]))
    found = {}
    for (s, t), c in cells().items():
        for r, sigma in enumerate(c["sigma"]):
            signs = [[mean(x) for x in zip(*moved[s, t, r, sign], strict=True)] for sign in (1, -1) if (s, t, r, sign) in moved]
            kl, no = [max((x[i] for x in signs), key=abs, default=math.nan) for i in (0, 1)]
            found[s, t, r] = {"s": s, "t": t, "r": r, "sigma": sigma, "gain": c["gain"][r], "kl": kl, "no": no}
    return found


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("kl > 0.1", lambda v: v["kl"] > 0.1),
        ("σ > 4", lambda v: v["sigma"] > 4),
        ("  σ>=4   kl<0.1 ", lambda v: v["sigma"] >= 4 and v["kl"] < 0.1),
        ("source == 3", lambda v: v["s"] == 3),
        ("source 1,3 target 4-5", lambda v: v["s"] in (1, 3) and v["t"] in (4, 5)),
        ("source 1, 3, target 4 - 5, kl > 0.1", lambda v: v["s"] in (1, 3) and v["t"] in (4, 5) and v["kl"] > 0.1),
        ("SOURCE 1 3 and Rank != 2", lambda v: v["s"] in (1, 3) and v["r"] != 2),
        ("source in [1, 3] && target = next", lambda v: v["s"] in (1, 3) and v["t"] == atlas_pages.NEXT),
        ("target next_token, 5", lambda v: v["t"] in (5, atlas_pages.NEXT)),
        ("target next token; rank 0", lambda v: v["t"] == atlas_pages.NEXT and v["r"] == 0),
        ("source not in 1,3", lambda v: v["s"] not in (1, 3)),
        ("source ≠ 1,3", lambda v: v["s"] not in (1, 3)),
        ("1 <= rank < 3", lambda v: 1 <= v["r"] < 3),
        ("4 < σ source 0", lambda v: v["sigma"] > 4 and v["s"] == 0),
        ("source 0 or source = 4", lambda v: v["s"] in (0, 4)),
        ("source 0 kl > 0.2 or σ ≤ 1", lambda v: (v["s"] == 0 and v["kl"] > 0.2) or v["sigma"] <= 1),
        ("rank 1..2", lambda v: v["r"] in (1, 2)),
        ("target>4", lambda v: v["t"] == 5),
        ("gain > 5e-1", lambda v: v["gain"] > 0.5),
        ('logit:" no" < −0.1', lambda v: v["no"] < -0.1),
        ('Logit of " no" < -.1', lambda v: v["no"] < -0.1),
        ("KL at the prompt's end > 0.1", lambda v: v["kl"] > 0.1),
        ("kl_end>0.1", lambda v: v["kl"] > 0.1),
        ("", lambda v: True),
    ],
)  # fmt: skip
def test_filter_understands(page, text, holds):
    enter(page, "#filter", text)
    want = sum(holds(v) for v in vectors().values())
    assert 0 < want == int(page.text("#filter-note").split()[0]) and not page.one("#filter").get_attribute("aria-invalid")
    for s, t, r, *_ in table(page):
        assert holds(vectors()[int(s), atlas_pages.NEXT if t == "next token" else int(t), int(r)])
    enter(page, "#filter", "")


def test_filter_takes_a_number_as_it_is_shown(page):
    """What is copied from the table is found again."""
    row = table(page)[3]
    enter(page, "#filter", f"σ = {row[3]}")
    assert row[:4] in [found[:4] for found in table(page)] and {found[3] for found in table(page)} == {row[3]}
    enter(page, "#filter", "")


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("colour=red", ["colour=red"]), ("source 3 colour = red, kl > 0.1 shiny", ["colour = red", "shiny"]), ("kl >", ["kl >"]),
        ("kl", ["kl"]), ("source=3abc", ["source=3abc"]), ("kl >> 2", ["kl >> 2"]), ("kl > 2,3", ["3"]), ("not source 3", ["not"]),
        ("target > next", ["target > next"]), ("<script>alert(1)</script>", ["<script>alert(1)</script>"]), ("40", ["40"]),
        ("2 < hue", ["2 < hue"]), ("source in [3", ["source in [3"]),
    ],
)  # fmt: skip
def test_filter_names_what_it_does_not_understand(page, text, phrases):
    enter(page, "#filter", "source 2")
    page.one("#filter").send_keys(f"; {text}", Keys.ENTER)
    page.settle()
    note, rows = page.text("#filter-note"), table(page)
    assert re.findall("“([^”]*)”", note.split(" not understood")[0]) == phrases and "kl_end" in note
    assert page.one("#filter").get_attribute("aria-invalid")
    place, under = page.one("#filter").rect, page.one("#filter-note").rect
    assert 0 <= under["y"] - place["y"] - place["height"] < 40
    understood = re.search("The table keeps to “(source 2[^”]*)”", note)[1]
    enter(page, "#filter", understood)
    assert table(page) == rows and "understood" not in page.text("#filter-note") and not page.one("#filter").get_attribute("aria-invalid")
    enter(page, "#filter", "")
    assert len(table(page)) == 25


# ---- pairs that cannot be


def test_impossible_pairs_say_why(page):
    cannot = page.all("#grid td.none")
    assert len(cannot) == sum(t <= s for s in DATA["sources"] for t in DATA["targets"] if t != atlas_pages.NEXT)
    titles = {(int(n.get_attribute("data-s")), int(n.get_attribute("data-t")) + 1): n.get_attribute("title") for n in cannot}
    assert titles[3, 1] == (
        "Layer 3 → layer 1: no such pair: mlp_out of layer 1 is not computed after mlp_out of layer 3, so a vector added there "
        "cannot change it"
    )
    assert "same activation" in titles[2, 2] and not page.one("#grid td.value").get_attribute("title")
    before = page.text("#cell-title")
    node = page.one("td[data-s='3'][data-t='0']")
    webdriver.ActionChains(page.driver).move_to_element(node).click().perform()
    page.settle()
    assert page.text("#readout") == titles[3, 1] and page.text("#cell-title") == before


def test_an_impossible_pair_cannot_be_linked_to(page):
    def answered():
        shown = page.fragment()
        assert page.text("#cell-title").startswith(f"Layer {shown['source']} → ") and page.one("#vector").is_displayed()
        assert not (shown["target"].isdigit() and int(shown["target"]) <= int(shown["source"]))
        note = page.one("#notice")
        return note.is_displayed() and "Layer 3 → layer 1, which cannot exist" in note.text

    page.open("#source=3&target=1&measure=sigma&vector=2")
    assert answered() and page.text("#map-title") == "σ, rank 0" and page.text("#vector-title").endswith("rank 2")
    page.show(source=1, target=4)
    assert not page.one("#notice").is_displayed()
    page.js("location.hash = 'source=3&target=1'")
    page.until(answered)
    assert page.text("#cell-title") == "Layer 1 → layer 4"
    page.one("td[data-s='0'][data-t='1']").click()
    page.settle()
    assert not page.one("#notice").is_displayed()
    for end, title in (("source=4", "Layer 4 → layer 5"), ("target=1", "Layer 0 → layer 1")):
        page.show(source=1, target=4)
        page.js("location.hash = arguments[0]", end)
        page.until(lambda title=title: page.text("#cell-title") == title)
        assert not page.one("#notice").is_displayed()


def test_pairs_are_those_of_the_sites(write, driver):
    """From an early site of a layer to a late one of the same layer is a pair; data of before name no pairs."""
    page = write({**DATA, "pairs": [*DATA["pairs"], [2, 2]]}, charts=False)
    page.open("#source=2&target=2")
    assert page.labels()[2, 2] == "not computed" and not page.one("#notice").is_displayed()
    assert page.text("#cell-title") == "Layer 2 → layer 2" and page.labels()[3, 3] == "no such pair"
    old = {name: value for name, value in DATA.items() if name != "pairs"}
    page = write(old, charts=False)
    page.open()
    assert page.labels()[2, 2] == "no such pair" and page.labels()[1, 4] != "no such pair"
    assert driver.get_log("browser") == []


# ---- where it opens


def highest(field, view=0, rank=None, scale=0.35):
    """The pair with the largest effect."""
    one = DATA["views"][view]
    ranks = range(4) if rank is None else [rank]
    size = {
        (s, t, r): max(effect(field, s, t, r, scale, sign, one["prompts"], view) for sign in (1, -1))
        for s, t in {(e["source"], e["target"]) for e in one["effects"]} for r in ranks
    }  # fmt: skip
    return max(size, key=size.get)


def opened_at(page, place):
    s, t, r = place
    target = "next token" if t == atlas_pages.NEXT else f"layer {t}"
    return page.text("#vector-title") == f"Vector layer {s} → {target}, rank {r}"


def test_opens_on_effects(page):
    page.open()
    assert page.text("#map-title") == BEGINNING and opened_at(page, highest("kl_end", rank=0))
    page.open("#measure=sigma")
    best = max((c for c in cells().values() if c["target"] != atlas_pages.NEXT), key=lambda c: c["sigma"][0])
    assert page.text("#map-title") == "σ, rank 0" and opened_at(page, (best["source"], best["target"], 0))


def test_opens_on_the_effects_that_there_are(write, driver):
    """Of another view than the first, and of other ranks than the first."""
    some = [e for e in DATA["views"][1]["effects"] if e["rank"] >= 2]
    views = [{**DATA["views"][0], "effects": [], "random": []}, {**DATA["views"][1], "effects": some}, DATA["views"][2]]
    page = write({**DATA, "views": views}, charts=False)
    page.open()
    assert page.one("#pick-view").get_attribute("value") == "1" and page.one("#pick-rank").get_attribute("value") == "max"
    place = max(((*highest("kl_end", 1, r)[:2], r) for r in (2, 3)), key=lambda p: max(
        effect("kl_end", *p, 0.35, sign, [0], 1) for sign in (1, -1)))
    assert opened_at(page, place)
    assert driver.get_log("browser") == []


# ---- gain


def test_gain_stands_beside_sigma(page):
    page.pick("measure", "gain")
    assert all(near(page.labels()[pair], c["gain"][0]) for pair, c in cells().items())
    assert page.texts("#legend .bar-name")[1] == "next token (√nats per source norm)" and len(page.all("#legend .bar")) == 2
    page.show(source=1, target=4, vector=2)
    assert [near(row[2], x) for row, x in zip(page.rows("#cell-vectors"), cells()[1, 4]["gain"], strict=True)] == [True] * 4
    assert near(re.search(r"gain ([\d.]+)", page.text("#vector-facts"))[1], cells()[1, 4]["gain"][2])
    page.show(source=1, target="next_token")
    assert "√nats" in page.text("#vector-facts") and "Gain" in page.texts("#table thead th")


def test_without_gain_none_is_offered(write, driver):
    views = [{**v, "cells": [{k: x for k, x in c.items() if k != "gain"} for c in v["cells"]]} for v in DATA["views"]]
    page = write({**DATA, "views": views}, charts=False)
    page.open("#measure=gain&source=1&target=4")
    assert not page.all("#pick-measure option[value=gain]") and "gain" not in page.text("#vector-facts")
    assert "Gain" not in page.texts("#table thead th") and page.text("#map-title") == BEGINNING
    assert driver.get_log("browser") == []


# ---- texts

SAMPLES = """return [arguments[0].querySelector('summary').textContent, ...Array.from(arguments[0].querySelectorAll('li'),
  (n) => [n.querySelector('.badge').textContent, n.querySelector('.text').textContent])]"""
LINES = "First line\n\n" + "\n".join(f"  and line {i}, where the dog ran away" for i in range(14))
SHOWN = "const r = document.createRange(); r.selectNodeContents(arguments[0]); return r.getBoundingClientRect().height"


@pytest.fixture(scope="module")
def sampled(write):
    """A page with samples, line breaks and long texts: those of prompt 1."""
    data = atlas_pages.page(n_layers=4, n_prompts=2, k=2, words=12, samples=3)
    data["prompts"][1] |= {"text": "Question:\n" + LINES, "base_text": LINES}
    for e in (e for v in data["views"] for kind in ("effects", "random") for e in v[kind] if e["prompt"] == 1):
        e["text"] = LINES.replace("dog", "cat", 2)
    page = write(data, charts=False)
    page.data = data
    page.open()
    return page


def of_vector(page, **wanted):
    found = [e for e in page.data["views"][0]["effects"] if all(e[name] == value for name, value in wanted.items())]
    return sorted(found, key=lambda e: (e["scale"], -e["sign"]))


def shown_texts(page, prompt):
    page.show(source=1, target=2, vector=1, prompt=prompt, measure="kl_end")
    page.until(lambda: len(page.all("#texts .pair")) == 4)
    return of_vector(page, source=1, target=2, rank=1, prompt=prompt)


def test_line_breaks_show(sampled):
    page, wanted = sampled, shown_texts(sampled, 1)
    texts = page.all("#texts .sides > div:last-child .text")
    assert [page.js("return arguments[0].textContent", n) for n in texts] == [e["text"] for e in wanted]
    breaks = texts[0].find_elements(By.CSS_SELECTOR, ".break")
    assert len(breaks) == LINES.count("\n")
    assert "↵" in page.js("return getComputedStyle(arguments[0], '::before').content", breaks[0])
    tops = page.js("return Array.from(arguments[0], (n) => n.getClientRects()[0].top)", breaks[:6])
    assert tops == sorted(set(tops)), "every one begins a line"
    assert page.js("return document.querySelectorAll('#prompt-text .break').length") == LINES.count("\n") + 1


def test_long_texts_fold(sampled):
    page = sampled
    shown_texts(page, 1)
    for selector, button in (("#texts .sides .text", "#texts .unfold"), ("#prompt-text", "#prompt-more .unfold")):
        text, unfold = page.one(selector), page.one(button)
        clipped = lambda text=text: page.js(SHOWN, text) > page.js("return arguments[0].clientHeight", text) + 20  # noqa: E731
        assert clipped() and unfold.get_attribute("aria-expanded") == "false" and unfold.text == "Show all"
        unfold.send_keys(Keys.ENTER)
        assert not clipped() and unfold.get_attribute("aria-expanded") == "true" and unfold.text == "Show less"
        unfold.click()
        assert clipped()
    shown_texts(page, 0)
    assert not page.all(".unfold") and not page.all("#texts .folded")


def test_samples_are_shown_right_and_wrong(sampled):
    page, wanted = sampled, shown_texts(sampled, 0)
    boxes = page.all("#texts .samples")
    assert len(boxes) == 4 and [box.get_attribute("open") is not None for box in boxes] == [True, False, False, False]
    for box, e in zip(boxes, wanted, strict=True):
        right = sum(map(int, e["sample_scores"]))
        title, *items = page.js(SAMPLES, box)
        assert title == f"3 samples with this vector at temperature 0.7: {right} right, {3 - right} wrong"
        judged = {1.0: "✓ right", 0.0: "✗ wrong"}
        assert items == [[judged[x], text] for x, text in zip(e["sample_scores"], e["samples"], strict=True)]
    judged = page.each("#texts .sides > div:last-child", "[n.querySelector('.badge').textContent, n.querySelector('.text').className]")
    assert judged == [["✓ right", "text right"] if e["score"] else ["✗ wrong", "text wrong"] for e in wanted]
    colours = {n: page.js("return getComputedStyle(document.querySelector(arguments[0])).color", f".badge.{n}") for n in ("right", "wrong")}
    assert colours["right"] != colours["wrong"]
    assert "1 right, 2 wrong" in page.text("#base-samples summary") and len(page.all("#base-samples li")) == 3
    page.pick("measure", "sample_score")
    best = max(mean(e["sample_scores"]) for e in of_vector(page, source=1, target=2, rank=0, scale=0.35, prompt=0))
    assert near(page.labels()[1, 2], best)
    text = wanted[2]["samples"][1]
    enter(page, "#contains", text)
    page.until(lambda: [row[:3] for row in table(page)] == [["1", "2", "1"]])
    enter(page, "#contains", "")


def test_scores_that_are_no_verdict(write, driver):
    data = atlas_pages.page(n_layers=3, n_prompts=1, k=2, words=8, samples=2)
    for e in data["views"][0]["effects"]:
        e["score"] = 0.25
    page = write(data, charts=False)
    page.open()
    page.until(lambda: page.all("#texts .pair"))
    assert set(page.texts("#texts .sides > div:last-child .badge")) == {"score 0.250"} and not page.all(".right, .wrong")
    assert driver.get_log("browser") == []


# ---- two maps


def second(page):
    return dict(page.each("#grid-2 td", "[`${n.dataset.s} ${n.dataset.t}`, n.ariaLabel.split(': ')[1]]"))


def test_two_maps_side_by_side(page):
    page.show(source=1, target=4, measure="kl_end")
    assert not page.one("#map-2").is_displayed() and not page.one("#pickers-2").is_displayed()
    page.one("#compare").click()
    page.settle()
    assert page.one("#compare").get_attribute("aria-pressed") == "true"
    said = second(page)
    assert len(said) == len(DATA["sources"]) * len(DATA["targets"])
    assert all(near(said[f"{s} {DATA['targets'].index(t)}"], c["gain"][0]) for (s, t), c in cells().items())
    one, two = page.one("#grid").rect, page.one("#grid-2").rect
    assert two["x"] >= one["x"] + one["width"] and abs(one["y"] - two["y"]) < 2
    page.pick("compare", "kl_end")
    page.pick("comparePrompt", 1)
    assert near(second(page)["1 3"], max(effect("kl_end", 1, 4, 0, 0.35, sign, [1]) for sign in (1, -1)))
    assert near(page.labels()[1, 4], max(effect("kl_end", 1, 4, 0, 0.35, sign) for sign in (1, -1)))
    assert page.texts("#legend .ticks span") == page.texts("#legend-2 .ticks span"), "one measure has one scale of colours"
    page.pick("compareView", 1)
    assert page.text("#map-title-2").endswith("of prompt 0 alone <i>") and page.fragment()["comparePrompt"] == "mean"
    assert near(second(page)["1 3"], max(effect("kl_end", 1, 4, 0, 0.35, sign, [0], view=1) for sign in (1, -1)))
    link = page.js("return location.href")
    page.one("#compare").click()
    page.settle()
    assert not page.one("#map-2").is_displayed() and "compare" not in page.fragment()
    page.open(link.removeprefix(page.url))
    assert page.one("#map-2").is_displayed() and page.text("#map-title-2").endswith("of prompt 0 alone <i>")


def test_two_maps_are_linked(page):
    page.show(source=1, target=4, measure="kl_end", compare="sigma")
    webdriver.ActionChains(page.driver).move_to_element(page.one("#grid td[data-s='0'][data-t='2']")).perform()
    page.settle()
    twins = page.each(".twin", "n.closest('table').id + n.dataset.s + n.dataset.t")
    assert twins == ["grid-202"] and page.text("#readout-2").startswith("Layer 0 → layer 3: ")
    assert near(page.text("#readout-2").split(": ")[1], cells()[0, 3]["sigma"][0])
    webdriver.ActionChains(page.driver).move_to_element(page.one("#grid-2 td[data-s='2'][data-t='4']")).perform()
    page.settle()
    assert page.each(".twin", "n.closest('table').id + n.dataset.s + n.dataset.t") == ["grid24"]
    assert near(page.text("#readout").split(": ")[1], max(effect("kl_end", 2, 5, 0, 0.35, sign) for sign in (1, -1)))
    page.one("#grid-2 td[data-s='2'][data-t='4']").click()
    page.keys(Keys.ARROW_UP)
    assert page.text("#cell-title") == "Layer 1 → layer 5" and page.js("return document.activeElement.closest('table').id") == "grid-2"
    assert page.each("td[aria-selected]", "n.dataset.s + n.dataset.t") == ["14", "14"]
    narrow(page, 390)
    one, two, wide = page.one("#grid").rect, page.one("#grid-2").rect, page.js("return document.documentElement.scrollWidth")
    widen(page)
    assert two["y"] > one["y"] + one["height"] and wide <= 390
    page.show()


# ---- with its charts


def test_opens_offline_and_asks_for_nothing(whole):
    whole.driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    whole.driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    whole.driver.get_log("performance")
    whole.open()
    whole.until(lambda: whole.js(RENDERED))
    messages = [json.loads(entry["message"])["message"] for entry in whole.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", "blob:", "about:"))] == [whole.url]
    assert whole.driver.get_log("browser") == []
    assert whole.text("h1") == whole.driver.title == DATA["title"]
    tools = whole.each(".modebar-btn", "n.dataset.title ?? n.ariaLabel ?? n.title")
    assert tools and not [name for name in tools if re.search("share|cloud|edit", name, re.I)]  # plotly's own server


def test_click_through(charted):
    page = charted
    page.one("td[data-s='1'][data-t='3']").click()
    page.settle()
    cell = cells()[1, 4]
    assert page.text("#cell-title") == "Layer 1 → layer 4" and page.one("td[aria-selected]").get_attribute("data-t") == "3"
    sigma, residuals = page.lines("#spectrum")
    assert sigma == pytest.approx(cell["sigma"], rel=1e-6) and residuals == pytest.approx(cell["residuals"], rel=1e-6)
    rows = page.rows("#cell-vectors")
    assert len(rows) == 4 and all(near(row[1], s) for row, s in zip(rows, cell["sigma"], strict=True))
    band = [y[0] for y in page.lines("#cell-effects")[:2]]
    both = [max(effect("kl_end", 1, "random", r, 0.35, sign, kind="random") for sign in (1, -1)) for r in range(4)]
    assert band == pytest.approx([min(both), max(both)], rel=1e-5)

    Select(page.one("#text-prompt")).select_by_value("0")
    page.all("#cell-vectors tbody tr")[2].click()
    page.until(lambda: page.text("#vector-title") == "Vector layer 1 → layer 4, rank 2")
    page.until(lambda: len(page.all("#texts .pair")) == 4)
    wanted = [e for e in DATA["views"][0]["effects"] if (e["source"], e["target"], e["rank"], e["prompt"]) == (1, 4, 2, 0)]
    wanted.sort(key=lambda e: (e["scale"], -e["sign"]))
    assert page.texts("#texts .sign") == [f"{'+' if e['sign'] > 0 else '−'} {e['scale']:g}" for e in wanted]
    assert page.texts("#texts .sides > div:last-child .text") == [e["text"] for e in wanted]
    assert page.texts("#texts .sides > div:first-child .text") == [DATA["prompts"][0]["base_text"]] * 4
    assert near(page.text("#texts .chip b"), wanted[0]["kl_end"])

    Select(page.one("#text-prompt")).select_by_value("1")
    page.until(lambda: page.text("#prompt-text") == DATA["prompts"][1]["text"])
    page.until(lambda: set(page.texts("#texts .sides > div:first-child .text")) == {DATA["prompts"][1]["base_text"]})


def test_click_on_a_point_of_the_spectrum(charted):
    page = charted
    point = page.until(lambda: page.all("#spectrum .xy .point"))[3]
    place, chart = point.rect, page.one("#spectrum .chart")
    page.js("arguments[0].scrollIntoView({block: 'center'})", chart)
    place = page.js("const r = arguments[0].getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]", point)
    mouse = webdriver.ActionChains(page.driver)
    mouse.w3c_actions.pointer_action.move_to_location(*map(round, place))
    mouse.pause(0.2)
    mouse.w3c_actions.pointer_action.click()
    mouse.perform()
    page.until(lambda: page.text("#vector-title").endswith("rank 3"))


def test_signs_and_scales(charted):
    page = charted
    page.show(source=1, target=4, vector=2, measure="kl_end", sign="+")
    page.until(lambda: len(page.all("#texts .pair")) == 4)
    page.one("#texts .pair:nth-child(4) .sign").click()  # -v at scale 1
    page.settle()
    assert page.fragment()["sign"] == "-" and page.fragment()["scale"] == "1"
    assert page.one("#pick-sign").get_attribute("value") == "-1" and page.text("#texts .chosen .sign") == "− 1"
    assert near(page.labels()[1, 4], effect("kl_end", 1, 4, 0, 1.0, -1))
    lines = page.lines("#vector-effects")[-2:]
    want = [[effect("kl_end", 1, 4, 2, scale, sign) for scale in DATA["scales"]] for sign in (1, -1)]
    assert lines == [pytest.approx(w, rel=1e-5) for w in want]


def test_random_band_of_both_signs(charted):
    charted.show(source=1, target=4, measure="logit:yes", scale=1)
    draws = [
        mean(e["logit_change"]["yes"] for e in DATA["views"][0]["random"]
             if (e["source"], e["rank"], e["sign"], e["scale"]) == (1, draw, sign, 1.0))
        for draw in range(4) for sign in (1, -1)
    ]  # fmt: skip
    wanted = pytest.approx([min(draws), max(draws)], rel=1e-5)
    charted.until(lambda: [y[0] for y in charted.lines("#cell-effects")[:2]] == wanted)
    assert [y[-1] for y in charted.lines("#vector-effects")[:2]] == wanted and min(draws) < 0 < max(draws)


def test_charts_stay_in_their_place_when_the_window_narrows(charted):
    narrow(charted, 500)
    charted.until(lambda: max(charted.each(".main-svg", "n.getBoundingClientRect().width")) < 500)
    over = charted.each(".chart", "n.querySelector('.main-svg').getBoundingClientRect().bottom - n.getBoundingClientRect().bottom")
    widen(charted)
    assert max(over) <= 1


def surface(page):
    return page.each(".chart .main-svg:first-child", "getComputedStyle(n).backgroundColor")


def test_both_schemes(charted):
    page = charted
    page.until(lambda: all("255, 255, 255" in colour for colour in surface(page)))
    page.media("dark")
    page.until(lambda: all("27, 30, 35" in colour for colour in surface(page)))
    assert contrast(page.js("return getComputedStyle(document.body).backgroundColor"), "rgb(0, 0, 0)") < 1.3
    page.one("#theme").click()  # what the reader chooses goes before what the system says
    assert page.text("#theme") == "Theme: Light"
    page.until(lambda: all("255, 255, 255" in colour for colour in surface(page)))
    page.media("light")
    page.one("#theme").click()
    page.until(lambda: all("27, 30, 35" in colour for colour in surface(page)))
    page.one("#theme").click()
    assert page.text("#theme") == "Theme: System colours"
    page.until(lambda: all("255, 255, 255" in colour for colour in surface(page)))


def test_on_paper(charted):
    page = charted
    page.media("dark", "print")
    page.until(lambda: all("255, 255, 255" in colour for colour in surface(page)))
    assert not any(node.is_displayed() for node in page.all("button.small, .pickers, #theme, #copy-python, nav"))
    assert page.one("#grid").is_displayed() and page.one("#texts .pair").is_displayed()
    assert page.js("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    paper = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    page.media()
    assert paper.startswith(b"%PDF") and 1 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 8

def test_paper_is_full_and_everything_on_it_is_open(charted):
    """By the events of a real print, which waits for nothing."""
    page = charted
    page.show(source=1, target=4, measure="kl_end", compare="gain")
    page.until(lambda: page.all("#random-texts .pair"))
    seen = """window.printed = null; addEventListener("beforeprint", () => { window.printed = {
      closed: document.querySelectorAll("details:not([open])").length,
      stretched: Array.from(document.querySelectorAll(".chart"), (n) => Boolean(n.querySelector(".main-svg").getAttribute("viewBox"))),
    }; }, { once: true })"""
    page.js(seen)
    before = page.js("return document.querySelectorAll('details[open]').length")
    page.media("", "")
    paper = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert paper.startswith(b"%PDF")
    printed = page.js("return window.printed")
    assert printed == {"closed": 0, "stretched": [True] * 3}
    assert page.js("return document.querySelectorAll('details[open]').length") == before
    narrow(page, 690)
    page.media(kind="print")
    page.until(lambda: not page.all("details:not([open])"))
    width = page.js("return document.body.clientWidth")
    drawings = page.each(".chart", "n.querySelector('.main-svg').getBoundingClientRect().width")
    maps = page.each("table.grid", "n.getBoundingClientRect().width")
    texts = page.each("#random-texts .text", "n.getBoundingClientRect().height > 0")
    page.media()
    widen(page)
    assert min(drawings) > 0.97 * width and all(0.85 * width < x <= width for x in maps) and texts and all(texts)
    widths = "[n.querySelector('.main-svg').getBoundingClientRect().width, n.clientWidth]"
    page.until(lambda: all(abs(a - b) < 2 for a, b in page.each(".chart", widths)))
    assert not page.all(".main-svg[viewBox]")
