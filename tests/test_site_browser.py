"""The built pages in a real browser, from the disk: they fit 400 pixels, are readable in both colour schemes and on paper,
ask nothing of another site, and can be searched."""

# ruff: noqa: F811  # a fixture and the argument that asks for it have one name

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from browser import NEEDS_CHROMIUM, Page, driver, widen  # noqa: F401
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build/site"
# 404.html is for servers: its links begin at the root
PAGES = sorted(page for page in SITE.rglob("*.html") if page.name != "404.html")
SOURCES = [ROOT / "mkdocs.yml", *(path for path in (ROOT / "docs").rglob("*") if path.is_file())]
BUILT = bool(PAGES) and (SITE / "index.html").stat().st_mtime > max(path.stat().st_mtime for path in SOURCES)
pytestmark = [NEEDS_CHROMIUM, pytest.mark.skipif(not BUILT, reason="build/site is not there or older than docs/: run mkdocs build")]

# Elements that stick out of the window and are in nothing that scrolls
OUTSIDE = """
    const scrolls = (n) => n && n !== document.body && (/auto|scroll/.test(getComputedStyle(n).overflowX) || scrolls(n.parentElement));
    return Array.from(document.querySelectorAll(".md-content *, .md-footer *")).filter((n) => {
      const {left, right, width} = n.getBoundingClientRect();
      return width && (right > innerWidth + 1 || left < -1) && !scrolls(n);
    }).map((n) => n.outerHTML.slice(0, 100));"""
# The least contrast of a text with what is behind it, by the formula of WCAG 2
CONTRAST = """
    const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true}), known = {};
    const light = (...colours) => known[colours] ??= (() => {
      for (const colour of ["#fff", ...colours]) { paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1); }
      const [r, g, b] = Array.from(paint.getImageData(0, 0, 1, 1).data.slice(0, 3), (v) => {
        const x = v / 255; return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    })();
    const behind = (n) => n ? [...behind(n.parentElement), getComputedStyle(n).backgroundColor] : [];
    let worst = [21, ""];
    for (const n of document.querySelectorAll(".md-header *, .md-content *, .md-footer *")) {
      const own = Array.from(n.childNodes).some((c) => c.nodeType === 3 && c.data.trim());
      if (!own || !n.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
      const back = behind(n), [a, b] = [light(...back), light(...back, getComputedStyle(n).color)].sort((x, y) => y - x);
      if ((a + 0.05) / (b + 0.05) < worst[0]) worst = [(a + 0.05) / (b + 0.05), n.outerHTML.slice(0, 100)];
    }
    return worst;"""
# As the page's own switch does it, without the colours between
SCHEME = """
    document.head.insertAdjacentHTML("beforeend", "<style>* { transition: none !important; }</style>");
    document.body.dataset.mdColorScheme = arguments[0];"""
HEADINGS = "return Array.from(document.querySelectorAll('.md-content :is(h1, h2, h3, h4, h5, h6)'), (n) => +n.tagName[1])"


@pytest.fixture(scope="module")
def page(driver):
    page = Page(driver, "")
    yield page
    widen(page)
    page.media()


def requests(driver):
    """Addresses asked for since the last call."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def at(page, path, width=1240):
    """Open a page of the site: what it asks for and what its console says."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    requests(page.driver)
    page.driver.get(path.as_uri())
    return requests(page.driver), page.driver.get_log("browser")


def test_every_page_fits_400_pixels_and_stays_on_the_disk(page):
    """In both colour schemes, with a text for each picture and headings in order. One load a page: they take the time."""
    for path in PAGES:
        asked, said = at(page, path, 400)
        elsewhere = [url for url in asked if not url.startswith((SITE.as_uri(), "data:"))]
        assert asked and not elsewhere and not said, (path, elsewhere, said)
        assert page.js("return document.documentElement.scrollWidth <= innerWidth") and not page.js(OUTSIDE), (path, page.js(OUTSIDE))
        for name, text, width in page.each(".md-content img", "[n.src, n.alt, n.naturalWidth]"):
            assert len(text) > 12 and width, (path, name, text)
        levels = page.js(HEADINGS)
        assert levels[0] == 1 and levels.count(1) == 1, path
        assert all(b <= a + 1 for a, b in pairwise(levels)), (path, levels)
        for scheme in ("default", "slate"):
            page.js(SCHEME, scheme)
            contrast, where = page.js(CONTRAST)
            assert contrast >= 4.5, (path, scheme, contrast, where)


def test_paper_has_the_text_and_no_menu(page):
    at(page, SITE / "results.html", 700)
    page.media(kind="print")
    parts = [".md-header", ".md-sidebar", ".md-footer", ".md-content"]
    shown = page.js("return arguments[0].map((s) => document.querySelector(s).checkVisibility())", parts)
    assert shown == [False, False, False, True]
    wide = "n.getBoundingClientRect().left < 0 || n.getBoundingClientRect().right > innerWidth || n.scrollWidth > n.clientWidth"
    assert page.each(".md-content table, .md-content img", wide) == [False] * len(page.all(".md-content table, .md-content img"))
    page.media()


def test_search_works_from_the_disk(page):
    asked, _ = at(page, SITE / "ideas/svd.html")
    page.one("input.md-search__input").send_keys("jacobian_lens_nothing", Keys.HOME)
    page.until(lambda: page.text(".md-search-result__meta").strip() == "No matching documents")
    page.one("input.md-search__input").clear()
    page.one("input.md-search__input").send_keys("ConvergenceWarning")
    found = page.until(lambda: page.each(".md-search-result__link", "n.href"))
    assert any("reference/errors.html" in link for link in found) and page.driver.get_log("browser") == []
    assert all(url.startswith((SITE.as_uri(), "data:", "about:")) for url in asked + requests(page.driver))
