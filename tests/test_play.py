"""Sliders without a browser: what is compared, the thread, the picture, what is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from test_html import Reader

import powersteer as ps
from powersteer.notebook.picture import picture
from powersteer.notebook.session import Comparison, Session
from powersteer.notebook.worker import Worker

PROMPT = "Q: 3*4\nA:"


@pytest.fixture(scope="module")
def demo():
    return ps.load("demo", threads=2)


@pytest.fixture(scope="module")
def vectors(demo):
    return [v.relative(0.5) for v in demo.jacobian(PROMPT, 1, 3).svd(k=2).vectors]


def last(session, *strengths):
    *_, seen = session.run(strengths)
    return seen


@pytest.mark.parametrize("strengths", [(0.5, 0.0), (1.0, -1.5), (-3.0, 2.0), (0.0, 0.0)])
@pytest.mark.parametrize("positions", [None, "generated"])
def test_what_is_seen_is_what_the_model_says(demo, vectors, strengths, positions):
    session = Session(demo, PROMPT, vectors, positions, 12)
    first, again = last(session, *strengths), last(session, *strengths)  # beside the plain continuation, and along it
    acting = [v for v in session.at(strengths) if v.scale]
    view = demo.steered(acting, positions) if acting else demo
    plain = demo.generate(PROMPT, max_new_tokens=12)
    assert first.plain == plain.text and first.steered == view.generate(PROMPT, max_new_tokens=12).text
    assert replace(again, kl=first.kl, mean_kl=first.mean_kl, next_tokens=first.next_tokens) == first
    for seen in (first, again):
        ends = [float(ps.evaluate.kl(view, PROMPT, continuation=c)) if acting else 0.0 for c in (0, [plain])]
        np.testing.assert_allclose([seen.kl, seen.mean_kl], ends, rtol=1e-4, atol=1e-9)
        p, q = (
            np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in (m(PROMPT)[-1].astype(float) for m in (demo, view))
        )
        likeliest = {
            demo.to_str_tokens([int(i)])[0]
            for share in (p, q)
            for i in np.argsort(-share)[:5]
            if max(p[i], q[i]) >= 1e-3
        }
        assert {t.text for t in seen.next_tokens} == likeliest
        np.testing.assert_allclose(
            [seen.next_tokens[0].plain, seen.next_tokens[0].steered], [p.max(), q[p.argmax()]], rtol=1e-4
        )


def test_where_the_texts_part(demo, vectors):
    session = Session(demo, PROMPT, vectors)
    seen = last(session, 0.5, 0.0)
    tokens = [view.generate(PROMPT).tokens for view in (demo, demo.steered(vectors[0]))]
    same = int(np.argmin(tokens[0][: len(tokens[1])] == tokens[1][: len(tokens[0])]))
    assert (
        seen.plain[: seen.parts_at] == seen.steered[: seen.parts_at] == demo.generate(PROMPT, max_new_tokens=same).text
    )
    assert seen.plain[seen.parts_at] != seen.steered[seen.parts_at]
    assert last(session, 0.0, 0.0).parts_at is None


def test_the_mark_stands_before_the_token_that_differs(demo, vectors):
    session = Session(demo, PROMPT, vectors)
    plain, tokens = last(session, 0.0, 0.0).plain, demo.generate(PROMPT).tokens.tolist()
    for n, token in enumerate(tokens):
        before = demo.generate(PROMPT, max_new_tokens=n).text if n else ""
        assert plain[: session._parts_at([*tokens[:n], token + 1])] == before


def test_pieces_only_add_and_the_plain_text_is_generated_once(demo, vectors):
    session = Session(demo, PROMPT, vectors)
    runs = [list(session.run((0.8, 0.0))), list(session.run((-0.8, 0.0)))]
    for run in runs:
        assert all(b.steered.startswith(a.steered) and b.plain.startswith(a.plain) for a, b in pairwise(run))
        assert [seen.finished for seen in run] == [False] * (len(run) - 1) + [True]
    assert runs[0][0].plain != runs[0][-1].plain and {seen.plain for seen in runs[1]} == {runs[0][-1].plain}


def test_an_interrupted_answer_changes_nothing(demo, vectors):
    whole = last(Session(demo, PROMPT, vectors), 0.9, 0.1)
    for count in range(1, len(list(Session(demo, PROMPT, vectors).run((-0.5, 1.0))))):
        session = Session(demo, PROMPT, vectors)
        run = session.run((-0.5, 1.0))
        for _ in range(count):
            next(run)
        run.close()
        seen = last(session, 0.9, 0.1)
        assert (seen.plain, seen.steered, seen.parts_at) == (whole.plain, whole.steered, whole.parts_at)
        np.testing.assert_allclose([seen.kl, seen.mean_kl], [whole.kl, whole.mean_kl], rtol=1e-4)


def test_strengths_are_in_units_of_the_activation(demo, vectors):
    known, unknown = replace(vectors[0].relative(0.5), site_norm=vectors[0].scale), replace(2 * vectors[0], site_norm=None)
    session = Session(demo, PROMPT, [known, unknown, vectors[1].clamp(), vectors[1].ablate()])
    norm = np.linalg.norm(demo.activations(PROMPT, unknown.location), axis=1).mean()
    assert session.strengths == pytest.approx((1.0, unknown.scale / norm, 0.5, 0.0))
    assert session.limits == pytest.approx((2.0, max(1.0, 2 * unknown.scale / norm), 1.0, 1.0))
    given = session.at(session.strengths)
    assert [v.scale for v in given] == pytest.approx([v.scale for v in session.vectors])
    assert [v.operation for v in given] == ["add", "add", "clamp", "clamp"]
    ablated = Session(demo, PROMPT, vectors[1].ablate())  # acts at 0, which a vector that is added does not
    assert last(ablated, 0.0).kl == pytest.approx(float(ps.evaluate.kl(demo, PROMPT, vectors[1].ablate())), rel=1e-4)


@pytest.mark.parametrize(
    "prompt, wrong, options, message",
    [
        ([PROMPT, PROMPT], None, {}, "one prompt; got a list of 2"),
        (PROMPT, [], {}, "list is empty"),
        (PROMPT, "v", {}, "cannot steer with 'v'"),
        (PROMPT, None, {"max_new_tokens": 10**6}, "do not fit the context"),
        (PROMPT, None, {"positions": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_played_is_refused(demo, vectors, prompt, wrong, options, message):
    with pytest.raises(ps.InvalidInput, match=message):
        Session(demo, prompt, vectors if wrong is None else wrong, **options)


def test_strengths_that_are_no_numbers_are_refused(demo, vectors):
    session = Session(demo, PROMPT, vectors)
    for wrong in ((0.1,), (0.1, float("nan"))):
        with pytest.raises(ps.InvalidInput, match="2 finite numbers"):
            next(session.run(wrong))


# ---- the thread


class Answers:
    """Answers of 1000 items each, which can be held up, and what of them was shown."""

    def __init__(self):
        self.go, self.shown, self.failed, self.running, self.most = threading.Event(), [], [], 0, 0
        self.worker = Worker(self.answer, self.show, self.failed.append)

    def answer(self, request):
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if request == "bad":
                raise ps.InvalidInput("bad")
            for i in range(1000):
                if i == 5:
                    assert self.go.wait(10)
                yield request, i
        finally:
            self.running -= 1

    def show(self, item):
        self.shown.append(item)

    def until(self, fact):
        end = time.monotonic() + 10
        while not fact():
            assert time.monotonic() < end
            time.sleep(0.001)


def test_the_newest_request_is_answered_and_older_ones_stop():
    a = Answers()
    a.worker.request("old")
    a.until(lambda: len(a.shown) == 5)
    a.worker.request("skipped")
    a.worker.request("new")
    a.go.set()
    assert a.worker.wait(10)
    assert a.shown == [("old", i) for i in range(5)] + [("new", i) for i in range(1000)]
    assert (a.most, a.running) == (1, 0)


def test_closing_stops_and_leaves_no_thread():
    a = Answers()
    a.worker.request("old")
    a.until(lambda: len(a.shown) == 5)
    threading.Timer(0.05, a.go.set).start()
    a.worker.close()
    a.worker.request("late")
    a.until(lambda: not any(t.name == "powersteer.play" for t in threading.enumerate()))
    assert a.shown == [("old", i) for i in range(5)] and a.running == 0


def test_an_error_is_reported_and_the_next_request_answered():
    a = Answers()
    a.go.set()
    a.worker.request("bad")
    assert a.worker.wait(10) and [str(e) for e in a.failed] == ["bad"]
    a.worker.request("good")
    assert a.worker.wait(10) and len(a.shown) == 1000


def test_the_end_of_the_program_ends_the_thread():
    """The answer would go on for minutes."""
    code = """
import itertools, threading, time
from powersteer.notebook.worker import Worker
def answer(request):
    for i in itertools.count():
        time.sleep(0.01)
        yield i
begun = threading.Event()
Worker(answer, lambda item: begun.set(), print).request(0)
assert begun.wait(30)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=40)


# ---- the picture


def test_the_picture_escapes_and_marks():
    nasty = "<script>&"
    token = ps.TokenShare(nasty, 0.25, 0.5)
    seen = Comparison(nasty, (0.5,), nasty + "one", nasty + "two", len(nasty), 0.125, 0.5, (token,), True)
    html = picture(seen, [nasty])
    read = Reader(html)
    assert "script" not in read.tags and read.tags.count("mark") == 2
    assert "".join(read.texts).count(nasty) == 5 and {"one", "two", "+0.50", "0.250", "0.500"} <= set(read.texts)
    assert "KL 0.125 nats" in html and "0.5 on average" in html
    assert "mark" not in Reader(picture(replace(seen, parts_at=None, kl=None), [nasty])).tags


# ---- the widget, without a page


def test_without_anywidget_one_error_names_the_extra(demo, vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "powersteer.notebook.widget", raising=False)
    with pytest.raises(ps.MissingDependency, match=r"pip install 'powersteer\[notebook\]'"):
        demo.play(PROMPT, vectors)


def test_a_slider_moves_the_vectors(demo, vectors):
    pytest.importorskip("anywidget")
    play = demo.play(PROMPT, vectors)
    first = play.wait()
    play._view.set_state({"strengths": [-1.0, 0.25]})  # as the page does
    seen = play.wait()
    assert (
        seen.strengths == (-1.0, 0.25) and seen.steered != first.steered and play._view.seen["steered"] == seen.steered
    )
    assert [v.scale for v in play.vectors] == pytest.approx([-vectors[0].site_norm, vectors[1].site_norm / 4])
    play._view.set_state({"strengths": [1e300, 0.0]})
    with pytest.raises(ps.InvalidInput, match="too large"):
        play.wait()
    assert "too large" in play._view.error
    play._view.set_state({"strengths": [0.0, 0.0]})
    assert play.wait().parts_at is None and play._view.error == ""
    assert "text/html" in play._bundle() and seen.plain in play._repr_html_()
    play.close()
