"""The report in a real browser: filter, impossible pairs, where it opens, gain, texts and samples, two maps, paper."""

# ruff: noqa: F811  # a fixture and the argument that asks for it have one name

from __future__ import annotations

import base64
import math
import re
from statistics import mean

import atlas_pages
import pytest
from browser import (  # noqa: F401  # fixtures
    BEGINNING,
    DATA,
    NEEDS_CHROMIUM,
    cells,
    charted,
    driver,
    effect,
    enter,
    narrow,
    near,
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

pytestmark = NEEDS_CHROMIUM


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


# ---- paper


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
