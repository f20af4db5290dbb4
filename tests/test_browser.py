"""The report in a real browser: its map, links, keys, table, looks and charts."""

# ruff: noqa: F811  # a fixture and the argument that asks for it have one name

from __future__ import annotations

import ast
import base64
import json
import math
import re
from itertools import takewhile
from statistics import mean, median

import atlas_pages
import pytest
from browser import (  # noqa: F401  # fixtures
    BEGINNING,
    DATA,
    NEEDS_CHROMIUM,
    RENDERED,
    cells,
    charted,
    driver,
    effect,
    enter,
    focused,
    narrow,
    near,
    number,
    page,
    quick,
    table,
    whole,
    widen,
    write,
)
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

pytestmark = NEEDS_CHROMIUM
CHANGE = "const n = document.getElementById(arguments[0]); n.value = arguments[1]; n.dispatchEvent(new Event('change'))"
CHOSEN = "return [document.getElementById(arguments[0]).value, document.querySelectorAll('#grid td.value').length]"


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
    page.until(lambda: page.text("#vector-title") == f"Vector layer {row[0]} → {target}, rank {row[2]}")
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
