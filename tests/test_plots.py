"""Figures: the artists hold the numbers, labels say units and origin, whatever the prompts contain."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny

import powersteer as ps
from powersteer import plots
from powersteer.inputs.prompts import user_turn

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

PROMPTS = ["It costs $5 or $6_{x}^2 \\frac", "two\nlines"]
SCALES = [0.5, 1.0, 2.0]


@pytest.fixture(scope="module")
def model():
    return tiny.tiny(n_layers=4)[0]


@pytest.fixture(scope="module")
def atlas(model):
    made = ps.atlas(model, PROMPTS, k=3, prompt_groups="both", progress=False)
    made.effects(2, scales=SCALES, tokens=["$"], max_new_tokens=0, n_random=3, progress=False)
    return made


@pytest.fixture(autouse=True)
def drawn():
    """Every figure of a test is drawn, so that what only fails then fails here."""
    yield
    for number in pyplot.get_fignums():
        pyplot.figure(number).canvas.draw()
    pyplot.close("all")


def grids(ax):
    """(next token's, layers') values of a map, NaN where there is no colour."""
    return [np.ma.filled(mesh.get_array(), np.nan) for mesh in ax.collections]


def words(ax):
    return " ".join([ax.get_title(loc="left"), *(t.get_text() for t in ax.texts)])


def marked(ax, label):
    """(source, target) places of the marks of a map."""
    return {(y, x) for line in ax.lines if line.get_label() == label for x, y in zip(*line.get_data(), strict=True)}


# ---- maps


def test_map_of_sigma(atlas):
    ax = plots.sensitivity_map(atlas, rank=1)
    column, layers = grids(ax)
    np.testing.assert_array_equal(layers, atlas.S[..., 1])
    np.testing.assert_array_equal(column[:, 0], atlas.next_token.S[:, 1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target layer", "source layer") and ax.yaxis_inverted()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "3", "next\ntoken"]
    bars = {a.get_ylabel() for a in ax.figure.axes if a is not ax}
    assert bars == {"next token: σ (√nats per unit of v)", "σ (target units per unit of v)"}
    assert "σ, rank 1" in words(ax) and "tiny · mlp_out → mlp_out · tol 0.01" in words(ax) and "and 1 more" in words(ax)
    assert {mesh.cmap.name for mesh in ax.collections} == {"cividis"} and not marked(ax, "no value")


@pytest.mark.parametrize("value", ["residual", "decay", "linearity"])
def test_one_colour_bar_where_units_agree(atlas, value):
    ax = plots.sensitivity_map(atlas, value, rank=1, scale=1.0)
    first, second = ax.collections
    assert (first.norm.vmin, first.norm.vmax) == (second.norm.vmin, second.norm.vmax) and len(ax.figure.axes) == 2
    want = {"residual": atlas.residuals[..., 1], "decay": atlas.S[..., 1] / atlas.S[..., 0]}
    if value in want:
        np.testing.assert_allclose(grids(ax)[1], want[value])


def test_map_of_an_effect(atlas):
    ax = plots.sensitivity_map(atlas, "kl_end", rank=1, scale=2.0)
    some = atlas.kept_effects.where(source=1, target=3, rank=1, scale=2.0)
    want = max(np.mean([e.kl_end for e in some if e.sign == sign]) for sign in (1, -1))
    assert grids(ax)[1][1, 3] == pytest.approx(want, rel=1e-12) and "larger of both signs, scale 2" in words(ax)
    moved = plots.sensitivity_map(atlas, "logit_change[$]", scale=2.0, sign=-1)
    some = atlas.kept_effects.where(source=1, target="next_token", rank=0, scale=2.0, sign=-1)
    assert grids(moved)[0][1, 0] == pytest.approx(np.mean([e.logit_change["$"] for e in some]), rel=1e-12)
    assert {m.cmap.name for m in moved.collections} == {"PuOr"} and moved.collections[0].norm(0.0) == 0.5
    empty = plots.sensitivity_map(atlas, "perplexity", scale=2.0)  # nothing was continued
    assert len(marked(empty, "no value")) == len(atlas.pairs) and np.isnan(grids(empty)[1]).all()


def test_map_of_a_group_of_prompts(atlas):
    for ax in (plots.sensitivity_map(atlas, prompt_group=2), plots.sensitivity_map(atlas.prompt(1))):
        np.testing.assert_array_equal(grids(ax)[1], atlas.prompt(1).S[..., 0])
        assert "two lines" in words(ax) and "more" not in words(ax)


def test_map_of_half_an_atlas(model, tmp_path):
    whole = ps.atlas(model, PROMPTS, k=3, method="krylov", max_applications=8, tol=1e-9, progress=False, out=tmp_path)
    assert not all(c.converged for c in whole)
    for file in tmp_path.glob("cells/0-001-*"):
        file.unlink()
    half = ps.Atlas.load(tmp_path, model)
    ax = plots.sensitivity_map(half)
    assert np.isnan(grids(ax)[1][1]).all() and np.isfinite(grids(ax)[1][0, 1:]).all()
    assert marked(ax, "no value") == {(1, 2), (1, 3), (1, 4.5)} and marked(ax, "not converged") >= {(0, 1)}
    assert "× no value" in words(ax) and "○ not converged" in words(ax)
    sketched = grids(plots.sensitivity_map(half, "estimate"))
    np.testing.assert_allclose(sketched[1], half.estimate[0])


def test_axes_that_are_given(atlas):
    _, places = pyplot.subplots(1, 5)
    effects = atlas.kept_effects.where(source=1)
    assert plots.sensitivity_map(atlas, ax=places[0]) is places[0]
    assert plots.spectra(atlas, ax=places[1]) is places[1]
    assert plots.cosine_map(atlas.vectors(0, 1), ax=places[2]) is places[2]
    assert plots.effect_curve(effects, ax=places[3]) is places[3]
    assert plots.violin(effects, ax=places[4]) is places[4]
    assert len(pyplot.get_fignums()) == 1


def test_cosines(atlas):
    vectors = [atlas.vector(s, t, 0) for s, t in atlas.pairs]
    ax = plots.cosine_map(vectors)
    (grid,) = grids(ax)
    rows = np.array([v.direction for v in vectors])
    np.testing.assert_allclose(grid, np.abs(rows @ rows.T), atol=1e-12)
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (0, 1)
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "3 → next token #0"
    assert "tiny · mlp_out · residuals ≤" in words(ax)
    ax = plots.cosine_map([-v for v in vectors[:2]], labels=["a$b$", "c"])
    assert [t.get_text() for t in ax.get_yticklabels()] == [r"a\$b\$", "c"]


# ---- spectra


def lines(ax):
    return [container.lines[0] for container in ax.containers]


def test_spectra_of_an_atlas(atlas):
    ax = plots.spectra(atlas)
    assert len(lines(ax)) == 6 and ax.get_ylabel() == "σ (target units per unit of v)" and ax.get_xlabel() == "rank"
    np.testing.assert_array_equal(lines(ax)[1].get_ydata(), atlas.S[0, 2])
    (bars,) = ax.containers[1].lines[2]
    heights = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, 2 * atlas.residuals[0, 2] * atlas.S[0, 2, 0], atol=1e-12)
    ax = plots.spectra(atlas, pairs=[(1, "next_token")])
    assert ax.get_ylabel() == "σ (√nats per unit of v)" and "1 → next_token" in words(ax)
    ax = plots.spectra(atlas, relative=True)
    assert len(lines(ax)) == 10 and {line.get_ydata()[0] for line in lines(ax)} == {1.0}


def test_spectra_of_results(model):
    good = model.jacobian("ab", 0, 2).svd(3)
    with pytest.warns(ps.ConvergenceWarning):
        bad = ps.svd(np.diag(np.linspace(1, 2, 300)), 3, max_applications=8)
    ax = plots.spectra([good, bad])
    assert [line.get_linestyle() for line in lines(ax)] == ["-", "--"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0: 0 → 2", "1: operator"]
    assert "tiny, a linear operator · tol 0.001" in words(ax) and "“ab”" in words(ax)
    np.testing.assert_array_equal(lines(plots.spectra({"x": good}))[0].get_ydata(), good.S)
    assert "layer" not in plots.spectra(good).get_ylabel()


# ---- effects


def test_effect_curve(atlas):
    effects = atlas.kept_effects.where(source=1, target=3, rank=0)
    ax = plots.effect_curve(effects)
    curves = {line.get_label(): line for line in ax.lines}
    for sign, name in ((1, "+v"), (-1, "−v")):
        want = [np.mean([e.kl_end for e in effects if (e.sign, e.scale) == (sign, s)]) for s in SCALES]
        np.testing.assert_allclose(curves[name].get_xydata(), np.column_stack([SCALES, want]), rtol=1e-12)
    draws = np.array([
        [np.mean([e.kl_end for e in effects.random if (e.rank, e.sign, e.scale) == (r, sign, s)]) for r in range(3) for sign in (1, -1)]
        for s in SCALES
    ])  # fmt: skip
    np.testing.assert_allclose(curves["their median"].get_ydata(), np.median(draws, axis=1))
    (band,) = ax.collections
    edges = band.get_paths()[0].vertices
    for scale, row in zip(SCALES, draws, strict=True):
        at = edges[edges[:, 0] == scale, 1]
        assert (at.min(), at.max()) == pytest.approx((row.min(), row.max()))
    assert ax.get_ylabel() == "KL at the prompt's end (nats)" and "fraction" in ax.get_xlabel()
    assert "layer 1 → 3, rank 0" in words(ax) and "mlp_out of layer 1" in words(ax)


def test_curve_without_a_band_and_of_one_scale(atlas):
    several = plots.effect_curve(atlas.kept_effects.where(source=1), "linearity")  # of a random vector there is none
    assert len(several.lines) == 2 * 2 * 3 and not several.collections and "6 vectors" in words(several)
    assert len(several.get_legend().get_texts()) == 2
    one = plots.effect_curve(atlas.kept_effects.where(source=1, scale=1.0, rank=0, target=2))
    assert np.ptp(one.collections[0].get_paths()[0].vertices[:, 0]) > 0


def test_violin(atlas):
    effects = atlas.kept_effects
    ax = plots.violin(effects, "logit_change[$]")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "1", "2"] and r"'\$'" in ax.get_ylabel()
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == [f"vectors ({10 * 2 * 2} a scale)", f"random vectors ({4 * 3 * 2} a scale)"]
    bodies = [c for c in ax.collections if "Poly" in type(c).__name__]
    assert len(bodies) == 6
    top = {}
    for e in effects.where(scale=2.0):
        top.setdefault((e.vector, e.sign), []).append(e.logit_change["$"])
    assert bodies[2].get_paths()[0].vertices[:, 1].max() == pytest.approx(max(map(np.mean, top.values())))
    lone = effects.where(source=0, target=1, rank=0, sign=1, scale=1.0, prompt=0)
    assert len(plots.violin(replace(lone, random=())).get_legend().get_texts()) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda a: plots.sensitivity_map("run/"), "must be an Atlas; got str"),
        (lambda a: plots.sensitivity_map(a, rank=3), "rank is 3; it must be at most 2"),
        (lambda a: plots.sensitivity_map(a, rank="0"), "rank is '0'"),
        (lambda a: plots.sensitivity_map(a, prompt_group=3), "prompt_group is 3; it must be at most 2"),
        (lambda a: plots.sensitivity_map(a, "kl_end"), r"scale is None.*\[0.5, 1.0, 2.0\]"),
        (lambda a: plots.sensitivity_map(a, "kl_end", rank=2, scale=1.0), r"scales \[\]"),
        (lambda a: plots.sensitivity_map(a, "kl", scale=1.0), "'kl'; it has kl_end"),
        (lambda a: plots.sensitivity_map(a.prompt(0), "kl_end"), "has none"),
        (lambda a: plots.spectra(a, pairs=[(0, 1), (0, "next_token")]), "different units"),
        (lambda a: plots.spectra(a, pairs=[(2, 1)]), "2 -> 1 cannot exist"),
        (lambda a: plots.spectra([]), "no singular value"),
        (lambda a: plots.spectra([1]), "got int"),
        (lambda a: plots.spectra({}, pairs=[(0, 1)]), "pairs are of an Atlas"),
        (lambda a: plots.cosine_map([]), "list of SteeringVector"),
        (lambda a: plots.cosine_map(a.vectors(0, 1), labels=["a"]), "1 labels for 3"),
        (lambda a: plots.cosine_map([a.vector(0, 1, 0), ps.SteeringVector.from_array(np.ones(3), 0, "mlp_out")]), "lengths"),
        (lambda a: plots.effect_curve(a), "must be Effects"),
        (lambda a: plots.effect_curve(a.kept_effects), "layer 0 and mlp_out of layer 1"),
        (lambda a: plots.violin(a.kept_effects, "score"), "'score' was not measured"),
        (lambda a: plots.violin(a.kept_effects, "logit_change[no]"), "was not measured"),
        (lambda a: plots.violin(a.kept_effects, "text"), "has no 'text'"),
    ],
)
def test_refusals(atlas, call, says):
    with pytest.raises(ps.InvalidInput, match=says):
        call(atlas)
    assert not pyplot.get_fignums()


def test_without_matplotlib(atlas, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ps.MissingDependency, match=r"pip install 'powersteer\[plots\]'"):
        plots.sensitivity_map(atlas)


def test_powersteer_does_not_import_it():
    code = "import sys, powersteer as ps; assert ps.plots.violin; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_old_names(atlas):
    effects = atlas.kept_effects.where(source=1)
    for call in (lambda: plots.sensitivity_map(atlas, "sigma", 0), lambda: plots.sensitivity_map(atlas, view=1),
                 lambda: plots.violin(effects, what="kl_end"), lambda: plots.effect_curve(effects, what="kl_end")):  # fmt: skip
        with pytest.warns(DeprecationWarning, match="by keyword|is now called"):
            call()


# ---- in a grid of subplots


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
def test_colour_bars_keep_to_their_axes(atlas, layout):
    """In a grid nothing of one plot lies on another, nor on the bar beside it."""
    figure, places = pyplot.subplots(2, 2, figsize=(11, 8), layout=layout)
    slots = [place.get_position() for place in places.flat]
    groups, known = [], set(figure.axes)
    draw = (lambda ax: plots.sensitivity_map(atlas, ax=ax), lambda ax: plots.sensitivity_map(atlas, rank=1, ax=ax),
            lambda ax: plots.cosine_map(atlas.vectors(0, 1), ax=ax),
            lambda ax: plots.sensitivity_map(atlas, "kl_end", scale=1.0, ax=ax))  # fmt: skip
    for place, make in zip(places.flat, draw, strict=True):
        make(place)
        groups.append([place, *(a for a in figure.axes if a not in known)])
        known = set(figure.axes)
    assert [len(g) for g in groups] == [3, 3, 2, 2]
    figure.canvas.draw()
    boxes = [[a.get_tightbbox() for a in group] for group in groups]
    for i, group in enumerate(boxes):
        for a, b in itertools.combinations(group[1:], 2):
            assert a.x1 <= b.x0 or b.x1 <= a.x0  # bars with their labels
        for bar in group[1:]:
            assert bar.x0 >= groups[i][0].get_window_extent().x1
            for other in itertools.chain(*(boxes[j] for j in range(4) if j != i)):
                assert not bar.overlaps(other)
            if layout is None:  # within the room that the axes had
                assert bar.x1 <= slots[i].x1 * figure.bbox.width + 1
    assert all(a.get_window_extent().width > 100 for a in places.flat)


def test_a_map_survives_small_axes(atlas):
    _, places = pyplot.subplots(3, 6)
    for place in places.flat:
        plots.sensitivity_map(atlas, ax=place)
    places[0, 0].figure.canvas.draw()
    assert all(place.get_window_extent().width > 0 for place in places.flat)


# ---- chats

SYSTEM = "Be a helpful one."


def chat(user):
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def test_chats_are_titled_by_the_users_turn(model, tmp_path):
    made = ps.atlas(model, [chat("How is the weather?"), chat("Who are you?")], k=2, progress=False, out=tmp_path)
    effects = made.effects(1, scales=[1.0], max_new_tokens=0, n_random=2, progress=False)
    alone = ps.effects(model, chat("How is the weather?"), made.vector(0, 1, 0), scales=[1.0], max_new_tokens=0, n_random=1)
    again = ps.Atlas.load(tmp_path, model)
    for ax in (plots.sensitivity_map(made), plots.spectra(made), plots.violin(effects), plots.effect_curve(effects.where(source=0)),
               plots.violin(alone), plots.sensitivity_map(again), plots.violin(again.kept_effects)):  # fmt: skip
        assert "How is the weather?" in words(ax) and "helpful" not in words(ax)
    ps.atlas(model, [chat("How is the weather?"), chat("Who are you?")], k=2, progress=False, out=tmp_path)  # resumed


def test_an_atlas_from_before_titles(model, tmp_path):
    made = ps.atlas(model, [chat("Who?")], k=1, progress=False)
    old = made.settings.to_json()
    assert old["prompts"][0].pop("title") == "Who?"
    there = type(made.settings).from_json(old)
    assert there == made.settings and there.to_json() == old and "helpful" in there.prompts[0].text
    assert "title" not in ps.atlas(model, ["text"], k=1, progress=False).settings.to_json()["prompts"][0]


@pytest.mark.parametrize("text", [
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n",
    f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nWho?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    f"<s>[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\nWho? [/INST]",
    f"<bos><start_of_turn>user\n{SYSTEM}<end_of_turn>\n<start_of_turn>model\nOk<end_of_turn>\n<start_of_turn>user\nWho?<end_of_turn>\n",
    f"<|system|>\n{SYSTEM}<|end|>\n<|user|>\nWho?<|end|>\n<|assistant|>\n",
    f"{SYSTEM}<｜User｜>Who?<｜Assistant｜>",
    f"<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{SYSTEM}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who?<|END_OF_TURN_TOKEN|>",
])  # fmt: skip
def test_the_users_turn_in_a_rendered_chat(text):
    assert user_turn(text) == "Who?"
    vec = ps.SteeringVector.from_array(np.ones(4), 0, "mlp_out", prompts=(text,))
    assert "“Who?”" in words(plots.cosine_map([vec, -vec]))


@pytest.mark.parametrize("text", ["a plain text", "the user said <b>no</b>", "x < user > y", ""])
def test_other_texts_are_their_own_title(text):
    assert user_turn(text) == text
