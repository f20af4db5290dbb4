"""`powersteer demo`: vectors flip three decisions of the built-in model, computed in a minute."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .._util.progress import Report, progress_line
from ..demo.forks import FORKS, questions
from ..demo.story import ANSWER, JACOBIAN, LAST, VALIDATION, ForkResult, load_demo, measure, to_json
from ..mapping.run import atlas
from ..model.model import Model
from ..vectors.steering_vector import SteeringVector
from .arguments import Command, Parser, check_page, nonempty, whole
from .console import print_json

_LABEL = 16  # columns


def _arguments(parser: Parser) -> None:
    parser.add_argument("--atlas", type=nonempty, metavar="FILE",
                        help="also map the model and write the page to explore (powersteer[report])")  # fmt: skip
    parser.add_argument("--seed", type=whole, default=0, help="of random vectors (default 0)")
    parser.add_argument("--threads", type=whole, help="default: the physical cores")


def _demo(args: Namespace) -> int:
    if args.atlas is not None:
        check_page(args.atlas)
    began = time.perf_counter()
    model = load_demo(args.threads)
    if not args.json:
        print(_opening(model), flush=True)
    results: list[ForkResult] = []
    for name, fork in FORKS.items():
        with _bar(name) as report:
            found = measure(model, name, seed=args.seed, progress=report)
        results.append(found.result)
        if not args.json:
            print(f"\n{name}: {fork.default} by default, or {fork.alternative}")
            prompt = questions(name, "test", 1)[0].prompt
            _show(model, prompt, {"Fisher": found.fisher, "power": found.power})
            print(_figures(found.result), flush=True)
    if args.atlas is not None:
        _write_atlas(model, args.atlas)
    seconds = time.perf_counter() - began
    if args.json:
        print_json(to_json(results, round(seconds, 2)))
    else:
        print(_closing(results[0], seconds) + (f"; {args.atlas} is the map" if args.atlas is not None else ""))
    return 0


def _opening(model: Model) -> str:
    return (
        f"The built-in model ({model.spec.n_params / 1e6:.1f}M weights, {model.n_layers} layers) can answer each kind of\n"
        "question in two ways, and by default gives the first. Vectors are computed from\n"
        f"{JACOBIAN} questions without labels, selected on {VALIDATION}, and tested on others."
    )


def _show(model: Model, prompt: str, vectors: dict[str, SteeringVector]) -> None:
    """Stream the answers, one line each: unsteered, and with both signs of every vector."""
    rows: list[tuple[str, SteeringVector | None]] = [("unsteered", None)]
    for name, v in vectors.items():
        scale = abs(v.scale) / (v.site_norm or 1.0)
        rows += [(f"{name} {sign}{scale:g}", v if sign == "+" else -v) for sign in "+-"]
    print("  " + prompt.replace("\n", " "))
    texts = [""] * len(rows)
    live = sys.stdout.isatty()
    if live:
        _draw(rows, texts)
    stream = model.generate([prompt] * len(rows), max_new_tokens=ANSWER, steer=[v for _, v in rows], stream=True)
    for row, piece in stream:
        texts[row] += piece
        if live:
            print(f"\x1b[{len(rows)}A", end="")
            _draw(rows, texts)
    if not live:
        _draw(rows, texts)


def _draw(rows: Sequence[tuple[str, object]], texts: Sequence[str]) -> None:
    width = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else 10_000
    for (label, _), text in zip(rows, texts, strict=True):
        line = f"  {label:<{_LABEL}}{text.strip()}"[:width]
        print(line + ("\x1b[K" if sys.stdout.isatty() else ""), flush=True)


def _figures(r: ForkResult) -> str:
    f, p = r.fisher_vector, r.power_vector
    return "\n".join([
        f"  {'right answers':<{_LABEL}}{100 * r.baseline:5.1f}% unsteered, {100 * r.forced:.1f}% with their first word given",
        f"  {'':<{_LABEL}}{_share(r.steered, f.ci)} first Fisher vector of layer {f.source}",
        f"  {'':<{_LABEL}}{_share(r.power, p.ci)} power vector {p.rank} of layers {p.source} -> {p.target}, best of {r.n_vectors}",
        f"  {'':<{_LABEL}}{100 * r.random_best:5.1f}% best of as many random vectors; {100 * r.random_same_norm:.1f}% on average "
        "at the Fisher vector's site and norm",
    ])  # fmt: skip


def _share(value: float, ci: tuple[float, float]) -> str:
    return f"{100 * value:5.1f}% [{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]"


def _closing(r: ForkResult, seconds: float) -> str:
    return f"\nall computed here in {seconds:.0f} s; {r.n_test} test questions a fork, 95% intervals"


def _write_atlas(model: Model, path: str) -> None:
    prompts = [questions(name, "validation", 1)[0].prompt for name in FORKS]
    with _bar("map") as report:
        made = atlas(model, prompts, k=4, target_positions=LAST, prompt_groups="each", progress=_later(report, 0.0, 0.1))
        groups = made.prompt_groups()
        for i, group in enumerate(groups):
            group.effects(k=4, max_new_tokens=ANSWER, progress=_later(report, 0.1 + 0.9 * i / len(groups), 0.9 / len(groups)))
    made.report(path)


def _later(report: Callable[[float, float], None], begin: float, share: float) -> Report:
    """Report the progress of a part as progress of the whole."""
    return lambda done, total: report(begin + share * done / total, 1.0)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on stderr that is removed before the results are printed; call it with (done, total)."""
    with progress_line(True, name, total=100, leave=False, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}") as line:
        yield lambda done, total: line.update(int(100 * done / total) - line.n)


COMMAND = Command(
    summary="Flip three decisions of the built-in model by steering, next to random vectors.",
    example="--atlas atlas.html",
    subject="",
    arguments=_arguments,
    run=_demo,
    json={
        "forks": "a list, one object a kind of question; accuracies are of whole answers to test questions",
        "forks.name": "products, recipes or sentences",
        "forks.baseline": "accuracy unsteered",
        "forks.steered": "accuracy with the Fisher vector",
        "forks.power": "accuracy with the layer-to-layer vector that the search selected",
        "forks.random_best": "the best of equally many random vectors, selected in the same way",
        "forks.random_same_norm": "mean over random vectors at the Fisher vector's site and norm",
        "forks.n_test": "test questions",
        "forks.ci": "95% interval of steered",
        "forks.source": "layer of the Fisher vector",
        "forks.target": "next_token",
        "forks.rank": "0, the first",
        "forks.sign": "1 or -1",
        "forks.relative_scale": "of the site's mean activation norm",
        "forks.forced": "accuracy unsteered, the alternative answer's first word given",
        "forks.power_vector": "accuracy, ci, source, target, rank, sign, relative_scale, norm",
        "forks.fisher_vector": "likewise",
        "forks.random_draws": "accuracy of the selected vector of each draw",
        "forks.n_vectors": "power vectors in the search",
        "forks.share": "of them that reach half on validation questions, at some sign and scale",
        "forks.random_share": "of the random ones",
        "seconds": "in all",
    },
)
