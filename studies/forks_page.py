"""The page of the study of forks, from what its folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import axes, save
from forks import FOUND, FULL, MAIN, METHODS, QUICK, RANDOM, Fork, Setup
from page import Page, cell
from results import metric

import powersteer as ps

__all__ = ["write_page"]

Share = ps.MetricResult


def _complete(fork: Fork) -> bool:
    return all(fork.has(*condition) for condition in fork.conditions("main"))


def write_page(forks: Sequence[Fork], path: Path) -> None:
    """Write the page, and its plot beside it: the answer from the forks whose main table is complete, tables of all there is."""
    begun = [f for f in forks if f.has("unsteered")]
    done, left = [f for f in forks if _complete(f)], [f.kind.name for f in forks if not _complete(f)]
    budget, usual = forks[0].sizes.budget, forks[0].sizes.budget == FULL.budget
    title, command = "Decision forks of a chat model", "python studies/forks.py MODEL --out FOLDER"
    page = Page(title if usual else f"{title}, at {budget} nats", command if usual else f"{command} --budget {budget}", {
        **{k: v for k, v in forks[0].results.settings.items() if k in ("model", "SHA-256")},
        "budget": f"{budget} nats",
        "seeds": f"0 of samples and Krylov, 0 to {forks[0].sizes.draws - 1} of random draws",
    }, forks[0].sizes.test == QUICK.test)  # fmt: skip
    if left:
        page.text(f"**Not run to the end: {', '.join(left)}.** The same command goes on where it stopped.")
    if done:
        page.text(_answer(done))
    if begun:
        plot = path.with_suffix(".svg")
        _draw(begun, plot)
        page.picture(plot, "coherent rates of the wanted side, by fork and method", path)
        for section in (_forks, _main, _elsewhere, _again, _alike, _examples):
            section(page, begun)
    page.write(path)


def _answer(forks: Sequence[Fork]) -> str:
    """The opening paragraph, from the comparisons."""
    sizes, n = forks[0].sizes, len(forks)
    setups = [MAIN, *(setup for some in forks[0].elsewhere.values() for setup in some)]
    comparisons = [(f, m, setup) for f in forks for setup in setups for m in FOUND if f.beats(m, setup) is not None]
    main = [(f, m) for f, m, setup in comparisons if setup == MAIN]
    yes = [(f, m) for f, m in main if f.beats(m)]
    lines = [
        f"On {n} forks of this model, the rarer side of each, {sizes.test} test prompts, vectors added everywhere at {sizes.budget} nats "
        "on unrelated prompts, and only coherent texts counted:"
    ]
    for method in FOUND:
        won = [f for f, m in yes if m == method]
        tried = sum(m == method for _, m in main)
        figures = "; ".join(
            f"{f.kind.name}: {_percent(f.share('unsteered'))} to {_percent(f.share(method))}, best random {_percent(_best_random(f))}"
            for f in won
        )
        lines.append(f"{method} beats unsteered and all random draws on {len(won)} of {tried}" + (f" ({figures})." if won else "."))
    idle = [f"{m} on {f.kind.name}" for f in forks for m in METHODS if (chosen := f.chosen(m)) and chosen[1] == 0]
    if idle:
        lines.append(
            f"In {len(idle)} of {n * len(METHODS)} choices no candidate scores on the {sizes.validation} validation prompts, and the first "
            f"is taken ({', '.join(idle)})."
        )
    for f in forks:
        if (forced := f.share("forced")) is not None and forced.high < 0.05:
            lines.append(f"On {f.kind.name} even an answer that is begun for the model counts in {_percent(forced)} only.")
    over, raw = (sum(_over_unsteered(f, r, which) for f in forks for r in RANDOM) for which in ("coherent", "raw"))
    lines.append(
        f"The best vector of a random draw itself beats unsteered in {over} of {n * len(RANDOM)} draws, and in {raw} if incoherent texts "
        "count."
    )
    unmoved = [f.kind.name for f in forks if not any(g is f for g, _ in yes)]
    if unmoved:
        lines.append(f"No method passes on: {', '.join(unmoved)}.")
    raw_only = [
        f"{m} on {f.kind.name}, {_percent(f.share('unsteered', which='raw'))} to {_percent(f.share(m, which='raw'))}"
        for f, m in main if f.beats(m, which="raw") and not f.beats(m)
    ]  # fmt: skip
    if raw_only:
        lines.append(
            f"Without the demand of coherence {len(raw_only)} more of {len(main)} would pass: {'; '.join(raw_only)}. That demand is "
            "strict: a greedy answer of the plain model is the likeliest text, and an answer that turns pays for its first tokens."
        )
    lines.append(f"These are {len(main)} comparisons of {len(comparisons)} on this page, at 95% each and not corrected for their number.")
    passed = [f"{m} on {f.kind.name}, {_label(setup)}" for f in forks for m, setup in f.passed()]
    again = [(f, m, setup._replace(again=True)) for f in forks for m, setup in f.passed()]
    holds = [f"{m} on {f.kind.name}, {_label(setup)}" for f, m, setup in again if f.beats(m, setup)]
    if elsewhere := len(comparisons) - len(main):
        lines.append(f"At other positions and budgets {len(passed)} of {elsewhere} pass{_in_brackets(passed)}.")
    if any(f.has(m, setup) for f, m, setup in again):
        lines.append(f"On the other test prompts {len(holds)} of them pass again{_in_brackets(holds)}.")
    return " ".join(lines)


def _in_brackets(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""


def _over_unsteered(fork: Fork, method: str, which: str) -> bool:
    mine, plain = (fork.share(m, which=which) for m in (method, "unsteered"))
    return mine is not None and plain is not None and mine.low > plain.high


def _best_random(fork: Fork) -> Share | None:
    return max((s for r in RANDOM if (s := fork.share(r)) is not None), key=float, default=None)


def _percent(rate: Share | None) -> str:
    return "–" if rate is None else f"{100 * rate.value:.0f}%"


def _label(setup: Setup) -> str:
    return setup.where if setup.kl is None else f"{setup.kl} nats"


def _forks(page: Page, forks: Sequence[Fork]) -> None:
    page.section("The forks")
    sizes = forks[0].sizes
    page.text(
        f"Rates of the two sides among {sizes.topics * sizes.samples} sampled answers (temperature 1, train topics), and the entropy of "
        "the first token. The phrasing in bold is studied. A text may take neither side."
    )
    rows = []
    for fork in forks:
        chosen = fork.chosen_phrasing()["phrasing"]
        for one in fork.all_sampled():
            text = f"**{one['phrasing']}**" if one["phrasing"] == chosen else one["phrasing"]
            rows.append([fork.kind.name, text, one["entropy"], *(f"{100 * r:.0f}%" for r in one["rates"])])
    page.table(("kind", "phrasing", "entropy, nats", "first side", "second side"), rows)
    page.text("Unsteered greedy answers on validation topics, and what follows from them:")
    page.table(
        ("kind", "first side", "second side", "wanted", "largest repetition", "largest perplexity", "fork by samples"),
        [[f.kind.name, *(f"{s.name} {100 * r:.0f}%" for s, r in zip(f.kind.sides, f.plain()["rates"], strict=True)), f.wanted().name,
          f.plain()["repetition"], f.plain()["perplexity"], "yes" if f.is_fork() else "no fork"] for f in forks],
    )  # fmt: skip


def _main(page: Page, forks: Sequence[Fork]) -> None:
    page.section(f"Rates at {forks[0].sizes.budget} nats, added everywhere")
    page.text(
        "Coherent texts of the wanted side on test prompts. Bold: above unsteered and every random draw, with intervals that do not "
        "overlap. \"Forced\": the answer is begun for the plain model in the wanted way, and the opening belongs to the text."
    )  # fmt: skip
    columns = ("unsteered", *METHODS, "forced")
    page.table(("fork, wanted", *columns), [[f"{f.kind.name}: {f.wanted().name}", *(_cell(f, m) for m in columns)] for f in forks])
    page.text("The same texts without the demand of coherence:")
    page.table(("fork", *columns), [[f.kind.name, *(_cell(f, m, which="raw") for m in columns)] for f in forks])
    page.text("Mean share of repeated 4-grams:")
    page.table(("fork", *columns), [[f.kind.name, *((g["repetition"] if (g := f.kept(m)) else "–") for m in columns)] for f in forks])
    page.section("The chosen vectors")
    s = forks[0].sizes
    page.text(
        f"Offered, each with both signs: *Fisher*, the first singular vector of the Jacobian from a layer to the next token, of "
        f"{len(s.layers)} layers; *power*, the first two of that between two layers, of {len(s.pairs)} pairs; *CAA*, the difference of the "
        f"mean activations of sampled answers of the two sides, of {len(s.layers)} layers; *random*, {2 * len(s.pairs)} unit vectors at "
        f"power's sources. Scale: the length of what is added, in the units of the residual stream. Dropped: those that reach "
        f"{s.budget} nats at no scale. On validation: coherent texts of the wanted side on {s.validation} prompts, by which the choice was "
        "made."
    )
    rows = []
    for fork in forks:
        for method in (m for m in METHODS if fork.has(m)):
            chosen, vector = fork.chosen(method), fork.scaled(method)
            if chosen is None or vector is None:
                rows.append([fork.kind.name, method, "none", "", "", fork.offered(method) - len(fork.candidates(method)), ""])
                continue
            target = "" if vector.target is None else f" → {vector.target if isinstance(vector.target, str) else vector.target.layer}"
            layers = f"{vector.layer}{target}" + (f", rank {vector.rank}" if method == "power" else "")
            dropped = fork.offered(method) - len(fork.candidates(method))
            sign = "+" if vector.scale > 0 else "−"
            rows.append([fork.kind.name, method, layers, sign, abs(vector.scale), dropped, f"{100 * chosen[1]:.0f}%"])
    page.table(("fork", "method", "layers", "sign", "scale", "dropped", "on validation"), rows)


def _cell(fork: Fork, method: str, setup: Setup = MAIN, which: str = "coherent") -> Any:
    rate = fork.share(method, setup, which)
    if rate is None:
        return "–"
    return f"**{cell(rate)}**" if method in FOUND and fork.beats(method, setup, which) else rate


def _elsewhere(page: Page, forks: Sequence[Fork]) -> None:
    columns = ("unsteered", *METHODS)
    for phase, setups in forks[0].elsewhere.items():
        rows = [
            [f.kind.name, _label(setup), *(_cell(f, m, setup) for m in columns)]
            for f in forks for setup in setups if any(f.kept(m, setup) for m in METHODS)
        ]  # fmt: skip
        page.section(f"At other {phase}")
        if not rows:
            page.text("Not run.")
            continue
        page.text(f"The same vectors on {forks[0].sizes.short_test} test prompts, each scaled again to its budget; coherent rates.")
        page.table(("fork", "where" if phase == "positions" else "budget", *columns), rows)
        if missing := len(forks) * len(setups) - len(rows):
            page.text(f"{missing} rows were not run.")


def _again(page: Page, forks: Sequence[Fork]) -> None:
    """What passed at other positions and budgets, on the test prompts that were left."""
    page.section("Again, on other prompts")
    passed = [(f, setup) for f in forks for setup in dict.fromkeys(setup for _, setup in f.passed())]
    if not passed:
        measured = any(f.has(m, setup) for f in forks for setups in f.elsewhere.values() for setup in setups for m in FOUND)
        page.text("Nothing passes at other positions or budgets." if measured else "Not run.")
        return
    sizes, columns = forks[0].sizes, ("unsteered", *METHODS)
    page.text(
        f"What passes in the two tables above, and the random draws, on the other {sizes.test - sizes.short_test} test prompts, with "
        "the same vectors at the same scales. –: not run."
    )
    rows = [[f.kind.name, _label(setup), *(_cell(f, m, setup._replace(again=True)) for m in columns)] for f, setup in passed]
    page.table(("fork", "where or budget", *columns), rows)


def _alike(page: Page, forks: Sequence[Fork]) -> None:
    """What passes, with intervals over stems; and apart by family, where a fork has several."""
    page.section("Prompts that are alike")
    page.text(
        "Topics are made of stems (an activity, a habit, a noun) and contexts, so that every stem is in train, validation and test "
        "prompts, and prompts of one stem are alike. The intervals above take prompts for independent; here, of what passes anywhere, "
        "are those of a bootstrap over stems, and whether it still lies above unsteered and random texts (the wider of both intervals "
        "of each)."
    )
    rows = []
    for f in forks:
        main = [(m, MAIN) for m in FOUND if f.beats(m)]
        for m, setup in [*main, *(one for p in f.passed() for one in (p, (p[0], p[1]._replace(again=True))))]:
            mine, others = f.share_by_stem(m, setup), [f.share_by_stem(r, setup) for r in ("unsteered", *RANDOM)]
            rates = [f.share(r, setup) for r in ("unsteered", *RANDOM)]
            if mine is None or any(r is None for r in (*others, *rates)):
                continue
            least = max(r.high for r in (*others, *rates) if r is not None)
            where = _label(setup) + (", other prompts" if setup.again else "")
            rows.append([f.kind.name, where, m, len(set(f.stems(setup))), f.share(m, setup), mine, f"{100 * least:.0f}%",
                         "yes" if mine.low > least else "no"])  # fmt: skip
    if rows:
        page.table(("fork", "where or budget", "vector", "stems", "by prompts", "by stems", "upper end of the rest", "above"), rows)
    else:
        page.text("Nothing passes.")
    for f in (f for f in forks if len(f.kind.stems) > 1):
        families = np.array([family for family, _ in f.stems()])
        methods = [m for m in ("unsteered", *METHODS, "forced") if f.kept(m)]
        values = [np.array(rate.values) for m in methods if (rate := f.share(m)) is not None]
        rows = [[name, int((families == name).sum()), *(metric(v[families == name], "share") for v in values)] for name in f.kind.stems]
        page.text(f"“{f.kind.name}”, apart by what the prompts are about:")
        page.table(("about", "n", *methods), rows)


def _examples(page: Page, forks: Sequence[Fork]) -> None:
    page.section("Texts")
    page.text("Of the first two test prompts of each fork, whatever they show. ✓: a coherent text of the wanted side; (✓): not coherent.")
    for fork in forks:
        for i, prompt in enumerate(fork.prompts("test", 2)):
            rows = []
            for method in ("unsteered", *METHODS, "forced"):
                if got := fork.kept(method):
                    mark = "✓" if got["coherent"][i] else "(✓)" if got["raw"][i] else ""
                    opening = f"[{fork.wanted().opening}]" if method == "forced" else ""
                    rows.append([method, mark, opening + got["texts"][i]])
            page.text(f"**{fork.kind.name}**, wanted: {fork.wanted().name}. “{prompt[0]['content']}”")
            page.table(("", "", "text"), rows)


def _draw(forks: Sequence[Fork], path: Path) -> None:
    """Coherent rates with intervals: a row for each fork."""
    colours = {"unsteered": "black", "Fisher": "tab:blue", "power": "tab:red", "CAA": "tab:green", "forced": "tab:purple"}
    figure, ((panel,),) = axes(1, 1, 8, 0.9 * len(forks) + 1.2)
    methods = ("unsteered", *METHODS, "forced")
    for row, fork in enumerate(forks):
        for i, method in enumerate(methods):
            if (rate := fork.share(method)) is None:
                continue
            y, colour = row + 0.08 * (i - len(methods) / 2), colours.get(method, "tab:gray")
            label = method if method in colours else "best of a random draw"
            panel.plot([100 * rate.low, 100 * rate.high], [y, y], color=colour, lw=1.5)
            panel.plot(100 * rate.value, y, "o", ms=4, color=colour, label=label)
    panel.set_yticks(range(len(forks)), [f"{f.kind.name}:\n{f.wanted().name}" for f in forks])
    panel.set_ylim(len(forks) - 0.4, -0.5)
    panel.set_xlabel(f"coherent texts of the wanted side, % of {forks[0].sizes.test} test prompts")
    handles, labels = panel.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    panel.legend(unique.values(), unique.keys(), fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(unique))
    save(figure, path)
