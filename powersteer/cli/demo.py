"""`powersteer demo`: vectors flip three decisions of the built-in model, computed in a minute, or one decision of a chat model."""

from __future__ import annotations

import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import get_type_hints

from .._util.progress import Report, progress_line
from ..demo.chat_story import ChatResult, check_chat, measure_chat
from ..demo.chat_text import described, share
from ..demo.forks import FORKS, questions
from ..demo.story import ANSWER, JACOBIAN, LAST, VALIDATION, ForkResult, load_demo, measure
from ..mapping.run import atlas
from ..model import Model, load
from ..vectors.steering_vector import SteeringVector
from .arguments import Argument, Command, check_page, nonempty
from .console import Keys, json_object, print_result

_LABEL = 16  # columns


def _demo(args: Namespace) -> int:
    if args.atlas is not None:
        check_page(args.atlas)
    return _built_in(args) if args.model is None else _chat(args)


def _built_in(args: Namespace) -> int:
    began = time.perf_counter()
    model = load_demo(args.threads)
    if not args.json:
        print(
            f"The built-in model ({model.spec.n_params / 1e6:.1f}M weights, {model.n_layers} layers) can answer each kind of\n"
            "question in two ways, and by default gives the first. Vectors are computed from\n"
            f"{JACOBIAN} questions without labels, selected on {VALIDATION}, and tested on others.", flush=True,
        )  # fmt: skip
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
    closing = f"\nall computed here in {seconds:.0f} s; {results[0].n_test} test questions a fork, 95% intervals"
    page = f"; {args.atlas} is the map" if args.atlas is not None else ""
    return print_result(args.json, json_object(_BUILT_IN, results, seconds), closing + page)


def _chat(args: Namespace) -> int:
    began = time.perf_counter()
    model = load(args.model, threads=args.threads)
    check_chat(model)
    if not args.json:
        print(
            f"{model.name} ({model.spec.n_params / 1e6:.0f}M weights, {model.n_layers} layers): which kinds of questions does it answer\n"
            "in two ways, and do vectors that are computed without labels turn its answers?", flush=True,
        )  # fmt: skip
    with _bar("demo") as report:
        found = measure_chat(model, seed=args.seed, progress=report)
    if args.atlas is not None:
        found.atlas.report(args.atlas)
    seconds = time.perf_counter() - began
    page = f"; {args.atlas} is the map" if args.atlas is not None else ""
    closing = f"all computed here in {seconds:.0f} s; 95% intervals{page}"
    return print_result(args.json, json_object(_OF_CHAT, [found.result], seconds), f"\n{described(found.result)}\n\n{closing}")


def _show(model: Model, prompt: str, vectors: dict[str, SteeringVector]) -> None:
    """Stream the answers, one line each: unsteered, and with both signs of every vector."""
    rows: list[tuple[str, SteeringVector | None]] = [("unsteered", None)]
    for name, v in vectors.items():
        scale = abs(v.scale) / (v.site_norm or 1.0)
        rows += [(f"{name} {sign}{scale:g}", v if sign == "+" else -v) for sign in "+-"]
    print("  " + prompt.replace("\n", " "))
    texts = [""] * len(rows)
    live = sys.stdout.isatty()

    def draw() -> None:
        width = shutil.get_terminal_size().columns - 1 if live else 10_000
        for (label, _), text in zip(rows, texts, strict=True):
            print(f"  {label:<{_LABEL}}{text.strip()}"[:width] + ("\x1b[K" if live else ""), flush=True)

    if live:
        draw()
    for row, piece in model.generate([prompt] * len(rows), max_new_tokens=ANSWER, steer=[v for _, v in rows], stream=True):
        texts[row] += piece
        if live:
            print(f"\x1b[{len(rows)}A", end="")
            draw()
    if not live:
        draw()


def _figures(r: ForkResult) -> str:
    f, p = r.fisher_vector, r.power_vector
    return "\n".join([
        f"  {'right answers':<{_LABEL}}{100 * r.baseline:5.1f}% unsteered, {100 * r.forced:.1f}% with their first word given",
        f"  {'':<{_LABEL}}{share(r.steered, f.ci)} first Fisher vector of layer {f.source}",
        f"  {'':<{_LABEL}}{share(r.power, p.ci)} power vector {p.rank} of layers {p.source} -> {p.target}, best of {r.n_vectors}",
        f"  {'':<{_LABEL}}{100 * r.random_best:5.1f}% best of as many random vectors; {100 * r.random_same_norm:.1f}% on average "
        "at the Fisher vector's site and norm",
    ])  # fmt: skip


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


def _keys(kind: type, about: str) -> Keys:
    hints = get_type_hints(kind, include_extras=True)
    return {
        "forks": (about, lambda forks, _: zip(forks)),
        **{f"forks.{field.name}": hints[field.name].__metadata__[0] for field in fields(kind)},
        "seconds": ("in all", lambda _, seconds: round(seconds, 2)),
    }


_BUILT_IN = _keys(ForkResult, "a list, one object a kind of question; accuracies are of whole answers to test questions")
_OF_CHAT = _keys(ChatResult, "a list of one object; shares are of test questions, of coherent answers on the wanted side")
COMMAND = Command(
    summary="Flip three decisions of the built-in model by steering, or one of a chat model, next to random vectors.",
    example="--atlas atlas.html",
    has_model=False,
    arguments=(
        Argument("--model", type=nonempty, help="a chat model (folder, hub id or .gguf file); default: the built-in model"),
        Argument("--atlas", type=nonempty, metavar="FILE", help="also map the model and write the page to explore (powersteer[report])"),
        Argument("--seed", type=int, default=0, help="of random vectors and samples (default 0)"),
        Argument("--threads", type=int, help="default: the physical cores"),
    ),
    run=_demo,
    json={**_BUILT_IN, **{f"{key} (--model)": about for key, about in _OF_CHAT.items() if key not in _BUILT_IN}},
)
