"""The page of the study of corrigibility: its figures, and what they say by the protocol's rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from corrigibility_figures import UNIT, Figures
from figures import axes, save
from page import Page, cell

if TYPE_CHECKING:
    from corrigibility import Study

__all__ = ["write"]

COMMAND = "python studies/corrigibility.py {}.gguf --questions FILE --out FOLDER --atlas FOLDER"


def write(study: Study, path: Path) -> None:
    """The page, and a picture of the same name."""
    f = Figures(study)
    s = study.results.settings
    page = Page(f"Corrigibility and survival instinct: {s['model']}", COMMAND.format(s["model"]), {
        "model SHA-256": s["sha256"], "questions SHA-256": s["questions sha256"], "questions to choose on": s["validation"],
        "questions to test on": s["test"], "vectors a method": s["candidates"], "seeds": "0, and 0 to 4 of the random draws",
    }, s["quick"])  # fmt: skip
    ready = f.mean(study.plain) is not None and bool(f.methods) and bool(f.draws)
    if ready:
        page.section("Answers")
        page.text(" ".join(answers(f)))
    lacking = [m for m in study.methods if f.mean(m) is None]
    if lacking:
        page.text(f"Without test figures yet, or without a vector at the budget: {', '.join(lacking)}.")
    if ready:
        tables(page, f)
        picture = path.with_suffix(".svg")
        draw(f, picture)
        page.picture(picture, "shift of content by method, and by side effect", path)
        pairs_and_ranks(page, f)
        of_atlas(page, f)
    page.write(path)


# ---- the answers: sentences that follow from the figures in them


def answers(f: Figures) -> Iterator[str]:
    plain, letters, share = f.mean(f.plain), f.mean(f.plain, "letters"), f.share(f.plain)
    toward = "A" if letters.value > 0 else "B"
    yield (
        f"Without steering the content of {plain.n} test questions of {f.main} is {cell(plain)} nats, corrigible in {cell(share)} of them; "
        f"the letter {toward} is preferred by {abs(letters.value):.2f} nats whatever it stands for."
    )
    beats = [m for m in f.methods if f.beats_random(m)]
    largest = max(f.methods, key=lambda m: f.shift(m).value)
    yield (
        f"At a side effect of {f.kl} nats {_of(len(beats), len(f.methods), 'methods beats', 'methods beat')} the best of {len(f.draws)} "
        f"draws of as many random vectors, which shifts content by {cell(f.shift(f.best_draw))} nats"
        + (f": {'; '.join(f'{m} ({cell(f.shift(m))})' for m in beats)}." if beats else f"; the largest shift is that of {largest}, "
           f"{cell(f.shift(largest))} nats.")
    )  # fmt: skip
    yield from _verdicts(f, beats)
    yield _letters(f)
    for what, kind, of, unit in (
        ("In the words of the answers", "texts", f.main, "nats a token"),
        (f"On {f.other}, without another choice,", "content", f.other, "nats"),
    ):
        found = {m: shift for m in beats or [largest] if (shift := f.shift(m, kind, of)) is not None}
        told = "; ".join(f"{m} {cell(shift)}" for m, shift in found.items())
        yield f"{what} the shift is {told} {unit}."
    by_texts = [m for m in f.methods if f.beats_random(m, "texts")]
    words = "; ".join(f"{m}, by {cell(f.difference(m, f.best_draw_by('texts'), 'texts'))}" for m in by_texts)
    yield (
        f"By those words, which nothing was chosen by, {_of(len(by_texts), len(f.methods), 'methods beats', 'methods beat')} the draw "
        f"that is best by them{f' ({words})' if words else ''}."
    )
    yield _wording(f, largest)
    yield from _of_the_map(f)


def _of(n: int, of: int, one: str, many: str) -> str:
    return f"{n or 'none'} of {of} {one if n == 1 else many}"


def _verdicts(f: Figures, beats: Sequence[str]) -> Iterator[str]:
    questions = {"CAA": "Do power vectors move content further than CAA", "MELBO": "Do they move it as far as optimisation by MELBO"}
    for of, question in questions.items():
        if f.power not in f.methods or of not in f.methods:
            continue
        d = f.difference(f.power, of)
        yes = d.low > 0 if of == "CAA" else d.high >= 0
        seen = "below 0" if d.high < 0 else "above 0" if d.low > 0 else "around 0"
        idle = [m for m in (f.power, of) if m not in beats]
        caution = f" ({' and '.join(idle)} {'do' if len(idle) > 1 else 'does'} not beat random vectors)" if idle else ""
        yield f"{question}? By the protocol's rule {'yes' if yes else 'no'}: by {cell(d)} nats, an interval {seen}{caution}."


def _wording(f: Figures, method: str) -> str:
    """Whether the largest shift is one of content, or one towards the word Yes or No."""
    by = {word: shift for word, shift in f.shift_by_wording(method).items() if word != "otherwise"}
    if None in by.values():
        return "Too few corrigible options begin with Yes or with No to tell a shift of content from one towards a word."
    yes, no = by["Yes"], by["No"]
    if (yes.low > 0 and no.high < 0) or (yes.high < 0 and no.low > 0):
        verdict = "it moves a preference for a word, not content"
    elif yes.low > 0 and no.low > 0:
        verdict = "both are above 0"
    else:
        verdict = "that does not tell content from a preference for a word"
    return (
        f"Looked at afterwards: the shift of {method} is {cell(yes)} nats on the {yes.n} questions whose corrigible option begins with "
        f"Yes and {cell(no)} on the {no.n} where it begins with No; {verdict}."
    )


def _of_the_map(f: Figures) -> Iterator[str]:
    if f.power not in f.methods or (foretold := f.foretold(f.power)) is None:
        return
    size = f.size_moved(f.power)
    v = f.study.vectors(f.power)[int(np.nanargmax(size))]
    yield (
        f"Of the power vectors, {v.layer} → {v.target[0]}, vector {v.rank + 1}, moves content most on validation, by "
        f"{np.nanmax(size):.2f} nats in the mean of both signs; the median is {np.nanmedian(size):.2f}."
    )
    sure = [f"{name} ({c})" for name, c in foretold.items() if c is not None and (c.low > 0 or c.high < 0)]
    yield (
        f"Of {', '.join(foretold)}, "
        + (f"{' and '.join(sure)} {'foretell' if len(sure) > 1 else 'foretells'} it, by rank correlation" if sure else "none foretells it")
        + f" over {len(size)} vectors of {len(set(f.groups(f.power)))} pairs of layers."
    )
    if (found := f.first_order) is not None:
        told = ", ".join(f"{name} {c}" for name, c in found["known"][UNIT].items() if c is not None)
        over = f"{len(found['size'])} vectors of {found['pairs']} pairs of a map"
        yield f"To first order, over {over}, the rank correlations with the content that a vector of length 1 moves are {told}."


def _letters(f: Figures) -> str:
    moved = np.abs([[f.shift(m, "letters").value, f.shift(m).value] for m in f.methods])
    more = int((moved[:, 0] > moved[:, 1]).sum())
    letters, content = np.median(moved, axis=0)
    return (
        f"{more} of {len(moved)} chosen vectors move the preference for a letter further than the content (medians of the absolute "
        f"shifts: {letters:.2f} and {content:.2f} nats)."
    )


# ---- tables


def tables(page: Page, f: Figures) -> None:
    page.text(
        "Content: the corrigible option's letter less the other's, averaged over both orders of the options, in nats. Letters: the "
        "preference for the letter A that is left. Share: questions with content above 0. Texts: mean log-likelihood a token of the "
        "corrigible answer's words less the other's. Brackets are 95% intervals over questions; shifts are paired differences to the "
        "plain model."
    )
    page.section("Without steering")
    page.table(
        ["questions", "n", "content", "letters", "share", "texts", "share by texts"],
        [[of, f.mean(f.plain, of=of).n, f.mean(f.plain, of=of), f.mean(f.plain, "letters", of), f.share(f.plain, of),
          *(_or_dash(x) for x in (f.mean(f.plain, "texts", of), f.share(f.plain, of, kind="texts")))]
         for of in f.study.sets if f.mean(f.plain, of=of) is not None],
    )  # fmt: skip
    page.section(f"Methods, at {f.kl} nats")
    page.text(
        f"Each method offers its vectors with both signs; the candidate with the best validation content is tested on {f.main}. "
        "Candidates: those that reach the side effect, of those offered. Cost: forward passes and products with J or Jᵀ that the vectors "
        "took, one prompt each; of the pull-back one of each for every labelled prompt."
    )
    page.table(
        ["method", "candidates", "cost", "chosen", "validation", "content", "shift", "share", "shift of letters", "shift of texts"],
        [[m, f.counted(m), f.cost(m), f.where(m), f"{f.study.choose(m)[1]:+.2f}", f.mean(m), f.shift(m), f.share(m), f.shift(m, "letters"),
          _or_dash(f.shift(m, "texts"))] for m in [*f.methods, *f.draws]],
    )  # fmt: skip
    page.section("Comparisons")
    rows = [[f"{m} − {f.best_draw}", f.difference(m, f.best_draw), "yes" if f.beats_random(m) else "no"] for m in f.methods]
    rows += [[f"{f.power} − {m}", f.difference(f.power, m), ""] for m in f.methods if m != f.power and f.power in f.methods]
    page.text(
        f"Paired differences of content, in nats. The first {len(f.methods)} are with the draw of random vectors that tests best; "
        f"“yes” is above all draws, with an interval above 0. {len(rows)} comparisons: at 95% about {0.05 * len(rows):.1f} would be off "
        "by chance."
    )
    page.table(["comparison", "difference", "beats random"], rows)
    page.section("By the wording of the corrigible option")
    page.text(
        "Not in the protocol, and added after the test figures were seen: most corrigible options begin with Yes, so that a vector that "
        "only prefers Yes would seem to move content. Shift of content, apart by how the corrigible option begins."
    )
    sets = [of for of in f.study.sets if f.mean(f.plain, of=of) is not None]
    page.table(
        ["method", *(f"{of}: {word}" for of in sets for word in ("Yes", "No", "otherwise"))],
        [[m, *(_or_dash(x) for of in sets for x in f.shift_by_wording(m, of).values())]
         for m in [*f.methods, *f.draws] if all(f.mean(m, of=of) is not None for of in sets)],
    )  # fmt: skip
    page.section("At other side effects")
    budgets = sorted(f.study.budgets)
    page.text(f"The vectors chosen at {f.kl} nats, scaled to others: shift of content, and share.")
    page.table(
        ["method", *(f"shift, {kl} nats" for kl in budgets), *(f"share, {kl} nats" for kl in budgets)],
        [[m, *(_or_dash(figure(m, kl=kl)) for figure in (f.shift, f.share) for kl in budgets)] for m in [*f.methods, *f.draws]],
    )
    page.section(f"The other questions: {f.other}")
    page.table(
        ["method", "content", "shift", "share", "shift of letters", "shift of texts"],
        [[m, f.mean(m, of=f.other), f.shift(m, of=f.other), f.share(m, f.other), f.shift(m, "letters", f.other),
          _or_dash(f.shift(m, "texts", f.other))] for m in [*f.methods, *f.draws] if f.mean(m, of=f.other) is not None],
    )  # fmt: skip


def _or_dash(value: Any) -> Any:
    return "–" if value is None else value


def pairs_and_ranks(page: Page, f: Figures) -> None:
    names = [m for m in (f.power, f.study.published) if f.there(lambda m=m: f.study.moved(m)) is not None]
    if not names:
        return
    page.section("Pairs and ranks")
    page.text(
        "Content moved by every power vector at the side effect, on the validation questions that every candidate is asked: the shift by "
        "+ and by −, in nats."
    )
    page.table(
        ["layers", "vector", *names],
        [[f"{v.layer} → {v.target[0]}", v.rank + 1, *(f.moved_by_sign(m, i) for m in names)]
         for i, v in enumerate(f.study.vectors(names[0]))],
    )  # fmt: skip
    known = {m: foretold for m in names if (foretold := f.foretold(m)) is not None}
    if known:
        page.section("Does the map foretell it?")
        page.text(
            "Spearman's ρ between the content moved, mean of the absolute shifts by both signs, and what the map knows of a vector; 95% "
            "bootstrap intervals over pairs of layers. Overlap: |cosine| with the first Fisher vector of the layer. Linearity: "
            "|ΔF − Jδ| / |ΔF|."
        )
        page.table(
            ["vectors", "n", *next(iter(known.values()))],
            [[m, len(f.size_moved(m)), *map(_or_dash, foretold.values())] for m, foretold in known.items()],
        )


def of_atlas(page: Page, f: Figures) -> None:
    if (found := f.first_order) is None:
        return
    size, where = found["size"], found["where"]
    page.section("The map, to first order")
    n = f.study.model.n_layers
    left = ", ".join(map(str, found["left out"]))
    outliers = f", all but those of layer {left}, where the first token has nearly all of the mean activation norm" if left else ""
    page.text(
        f"{len(size)} vectors, of {found['pairs']} of {n * (n - 1) // 2} pairs of layers, of a certified map of the model made with "
        f"another prompt{outliers}: content moved on the validation questions to first order, in absolute value, by a vector of "
        f"{found['length']} activation norms of its site. The ten that move most; then Spearman's ρ with what the map knows of a "
        "vector, with 95% bootstrap intervals over sources, of vectors of this length and of length 1: gain and content "
        "both grow with the norm."
    )
    page.table(
        ["layers", "vector", "content, nats"],
        [[f"{where[i][0]} → {where[i][1]}", where[i][2] + 1, f"{size[i]:.2f}"] for i in np.argsort(-size, kind="stable")[:10]],
    )
    rows = [[length, *map(_or_dash, known.values())] for length, known in found["known"].items()]
    page.table(["length", *next(iter(found["known"].values()))], rows)


# ---- the picture


def draw(f: Figures, path: Path) -> None:
    figure, ((left, right),) = axes(1, 2, 5.5, 4)
    for offset, of, colour in ((0.0, f.main, "C0"), (0.25, f.other, "C1")):
        shown = [(i, s) for i, m in enumerate(f.methods) if (s := f.shift(m, of=of)) is not None]
        for i, shift in shown:
            label = of if i == shown[0][0] else None
            left.errorbar(shift.value, i + offset, xerr=[[shift.value - shift.low], [shift.high - shift.value]], fmt="o", color=colour,
                          capsize=3, label=label)  # fmt: skip
    left.axvspan(*_range(f, f.draws), color="0.88", label=f"random draws, {f.main}")
    left.axvline(0, color="0.5", lw=0.8)
    left.set(yticks=range(len(f.methods)), yticklabels=f.methods, xlabel=f"shift of content at {f.kl} nats, 95% interval")
    left.invert_yaxis()
    left.legend(fontsize=7)
    budgets = sorted(f.study.budgets)
    for m in f.methods:
        points = [(kl, shift.value) for kl in budgets if (shift := f.shift(m, kl=kl)) is not None]
        right.plot(*zip(*points, strict=True), "o-", label=m)
    at = [(kl, _range(f, f.draws, kl)) for kl in budgets if all(f.shift(d, kl=kl) is not None for d in f.draws)]
    right.fill_between([kl for kl, _ in at], *np.transpose([r for _, r in at]), color="0.88", label="random draws")
    right.axhline(0, color="0.5", lw=0.8)
    right.set(xscale="log", xlabel="side effect, nats", ylabel="shift of content, nats")
    right.set_xticks(budgets, [str(kl) for kl in budgets])
    right.minorticks_off()
    right.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, path)


def _range(f: Figures, methods: Sequence[str], kl: float | None = None) -> tuple[float, float]:
    values = [f.shift(m, kl=kl).value for m in methods]
    return min(values), max(values)
