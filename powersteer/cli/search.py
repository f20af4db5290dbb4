"""`powersteer search`: select a vector on validation prompts by what its continuations contain, or by the logits of two tokens;
report it on test prompts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .._util.atomic import check_writable
from ..errors import InvalidInput
from ..evaluate.coherence import coherent
from ..evaluate.intervals import MetricResult
from ..evaluate.scores import LogitDifference, Score, contains
from ..evaluate.search import search
from ..model import load
from ..vectors.saved import load_vectors
from .arguments import CHAT, Argument, Command, given, nonempty, positions, read_lines, worker_pools
from .console import json_object, print_result
from .vectors import PROMPT_GROUP, chosen_atlas, target_name


def _search(args: Namespace) -> int:
    score = _score(args)
    validation, test = (read_lines(path, args.chat) for path in (args.validation, args.test))
    if args.out is not None:
        check_writable(args.out)
    model = None if args.model is None else load(args.model)
    how = given(args, "scales", "kl", "positions", "n_random", "seed", "max_new_tokens", "passing", "halving", "screen")
    how["progress"] = True
    with worker_pools(args.workers) as how["executor"]:
        if Path(args.vectors).is_dir():
            made = chosen_atlas(args.vectors, args.prompt_group, model)
            result = made.search(score, validation=validation, test=test, k=args.rank, **how)
        elif model is None:
            raise InvalidInput(f"{args.vectors} is not the folder of an atlas: give the model of its vectors by --model")
        else:
            result = search(model, load_vectors(args.vectors), score, validation=validation, test=test, **how)
    if args.out is not None:
        result.vector.save(args.out)
    return print_result(args.json, json_object(COMMAND.json, result, result.chosen[0].candidate), result)


def _score(args: Namespace) -> Score:
    if [args.prefer is None, args.over is None] != [args.wanted is not None] * 2:
        raise InvalidInput("give either --wanted REGEX, or both --prefer TEXT and --over TEXT")
    limits = given(args, "repetition", "perplexity")
    if args.wanted is None:
        if limits:
            raise InvalidInput(f"--{min(limits)} is a limit of texts: it needs --wanted REGEX")
        return LogitDifference(args.prefer, args.over)
    return coherent(contains(args.wanted), **limits) if limits else contains(args.wanted)


def _measured(m: MetricResult | None) -> dict[str, Any] | None:
    if m is None:
        return None
    return {key: None if value != value else value for key, value in (("value", m.value), ("low", m.low), ("high", m.high), ("n", m.n))}


def _correlation(of: tuple[float, int] | None) -> dict[str, Any] | None:
    return None if of is None else {"value": None if of[0] != of[0] else of[0], "n": of[1]}


_INTERVAL = "value, low, high (95%), n"
COMMAND = Command(
    summary="Select a vector, sign and scale by what the model then generates or prefers, and report it on other prompts.",
    example="run/ --wanted dog --validation validation.jsonl --test test.jsonl --rank 0 --n-random 2 --max-new-tokens 8",
    has_model=False,
    arguments=(
        Argument("vectors", type=nonempty, help="folder of an atlas, or a file of vectors (with --model)"),
        Argument("--wanted", type=nonempty, metavar="REGEX", help="regular expression that a wanted continuation contains"),
        Argument("--prefer", metavar="TEXT", help="instead of --wanted: one token, whose logit minus that of --over is the score"),
        Argument("--over", metavar="TEXT", help="the other token"),
        Argument("--repetition", type=float, metavar="SHARE", help="of --wanted: largest share of repeated 4-grams in a text that counts"),
        Argument("--perplexity", type=float, metavar="LIMIT",
                 help="of --wanted: largest perplexity, under the plain model, of a text that counts"),
        Argument("--validation", type=nonempty, required=True, metavar="FILE", help="prompts to select on: JSON lines, as of --prompts"),
        Argument("--test", type=nonempty, required=True, metavar="FILE", help="other prompts, to report the selected vector on"),
        CHAT,
        Argument("--model", type=nonempty, help="checkpoint (default: the one of the atlas)"),
        Argument("--rank", type=list[int], metavar="RANKS", help="of every pair of an atlas: 0 or 0-3 (default: all)"),
        PROMPT_GROUP,
        Argument("--scales", group="strength", type=list[float], help="to try, in site norms (default 0.35,1)"),
        Argument("--kl", group="strength", type=list[float], metavar="NATS",
                 help="instead: try every vector at the scales that move the next token by so much, such as 0.5,1"),
        Argument("--positions", type=positions, help="where vectors are added: prompt, generated, -1, 3,5 or -2: (default all)"),
        Argument("--n-random", old="--random", type=int, default=5, metavar="DRAWS", help="searches among random vectors (default 5)"),
        Argument("--halving", type=int, metavar="H", help="all on few prompts first, the best 1/H on H times as many, and so on"),
        Argument("--screen", type=int, metavar="N", help="measure the N candidates of the greatest first-order change (with --prefer)"),
        Argument("--passing", type=float, default=0.5, help="validation score from which a vector counts (default 0.5)"),
        Argument("--max-new-tokens", type=int, default=64, help="of every continuation (default 64)"),
        Argument("--seed", type=int, default=0, help="of random vectors (default 0)"),
        Argument("--workers", type=int, default=0, help="processes that compute scores, with a thread each (default: none)"),
        Argument("--out", type=nonempty, metavar="FILE", help="write the selected vector, with its sign and scale"),
    ),
    run=_search,
    json={
        "source": ("layer of the selected vector", lambda _, chosen: chosen.vector.layer),
        "site": ("site it is added to", lambda _, chosen: chosen.vector.site),
        "target": ("site, next_token, logits or null", lambda _, chosen: target_name(chosen.vector)),
        "rank": ("among the singular vectors of its pair, or null", lambda _, chosen: chosen.vector.rank),
        "method": ("how it was found", lambda _, chosen: chosen.vector.method),
        "sign": "1 or -1",
        "scale": "of the site's mean activation norm",
        "kl": ("divergence in nats that the scale was found for, or null", lambda _, chosen: chosen.budget),
        "norm": ("absolute length added", lambda _, chosen: abs(chosen.vector.scale)),
        "validation": ("mean score on the validation prompts, on which it was selected", lambda _, chosen: chosen.score),
        "test": (f"mean score on the test prompts: {_INTERVAL}", lambda result, _: _measured(result.test)),
        "unsteered": ("likewise, without a vector", lambda result, _: _measured(result.unsteered[1])),
        "gain": ("likewise, the difference", lambda result, _: _measured(result.gain)),
        "raw": ("the test without the limits of --repetition and --perplexity, or null",
                lambda result, _: _measured(result.chosen[0].raw)),
        "random": ("likewise, a list: of each search among equally many random vectors",
                   lambda result, _: [_measured(r.test) for r in result.random]),
        "beats_random": ("whether the whole interval of the test lies above all of these",
                         lambda result, _: result.beats_random if result.random else None),
        "share": ("of vectors that pass on validation, at some sign and scale", lambda result, _: _measured(result.share)),
        "random_share": ("of the random ones", lambda result, _: _measured(result.random_share)),
        "screen_correlation": ("of predicted and measured change, by ranks: value, n candidates; null without --screen",
                               lambda result, _: _correlation(result.screen_correlation)),
    },
)
