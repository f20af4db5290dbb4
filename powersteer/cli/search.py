"""`powersteer search`: select a vector on validation prompts by what its continuations contain, report it on test prompts."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .._util.atomic import check_writable
from ..errors import InvalidInput
from ..evaluate.intervals import MetricResult
from ..evaluate.scores import contains
from ..evaluate.search import SearchResult, search
from ..model import load
from ..vectors.steering_vector import load_vectors
from .arguments import Command, Parser, nonempty, number, numbers, read_lines, whole, wholes
from .console import print_json
from .vectors import add_prompt_group, chosen_atlas


def _arguments(parser: Parser) -> None:
    parser.add_argument("vectors", type=nonempty, help="folder of an atlas, or a file of vectors (with --model)")
    parser.add_argument("--wanted", type=nonempty, required=True, metavar="REGEX",
                        help="regular expression that a wanted continuation contains")  # fmt: skip
    parser.add_argument("--validation", type=nonempty, required=True, metavar="FILE",
                        help="prompts to select on: JSON lines, as of --prompts")  # fmt: skip
    parser.add_argument("--test", type=nonempty, required=True, metavar="FILE", help="other prompts, to report the selected vector on")
    parser.add_argument("--chat", action="store_true", help="render prompts with the model's chat template")
    parser.add_argument("--model", type=nonempty, help="checkpoint (default: the one of the atlas)")
    parser.add_argument("--rank", type=wholes, metavar="RANKS", help="of every pair of an atlas: 0 or 0-3 (default: all)")
    add_prompt_group(parser)
    parser.add_argument("--scales", type=numbers, default=[0.35, 1.0], help="to try, in site norms (default 0.35,1)")
    parser.add_option("--n-random", "--random", dest="random", type=whole, default=5, metavar="DRAWS",
                      help="searches among random vectors (default 5)")  # fmt: skip
    parser.add_argument("--halving", type=whole, metavar="H", help="all on few prompts first, the best 1/H on H times as many, and so on")
    parser.add_argument("--passing", type=number, default=0.5, help="validation score from which a vector counts (default 0.5)")
    parser.add_argument("--max-new-tokens", type=whole, default=64, help="of every continuation (default 64)")
    parser.add_argument("--seed", type=whole, default=0, help="of random vectors (default 0)")
    parser.add_argument("--out", type=nonempty, metavar="FILE", help="write the selected vector, with its sign and scale")


def _search(args: Namespace) -> int:
    score = contains(args.wanted)
    validation, test = (read_lines(path, args.chat) for path in (args.validation, args.test))
    if args.out is not None:
        check_writable(args.out)
    model = None if args.model is None else load(args.model)
    how: dict[str, Any] = {
        "scales": args.scales, "n_random": args.random, "seed": args.seed, "max_new_tokens": args.max_new_tokens,
        "passing": args.passing, "halving": args.halving, "progress": True,
    }  # fmt: skip
    if Path(args.vectors).is_dir():
        result = chosen_atlas(args.vectors, args.prompt_group, model).search(score, validation=validation, test=test, k=args.rank, **how)
    elif model is None:
        raise InvalidInput(f"{args.vectors} is not the folder of an atlas: give the model of its vectors by --model")
    else:
        result = search(model, load_vectors(args.vectors), score, validation=validation, test=test, **how)
    if args.out is not None:
        result.vector.save(args.out)
    if args.json:
        print_json(_summary(result))
    else:
        print(result)
    return 0


def _summary(result: SearchResult) -> dict[str, Any]:
    chosen = result.chosen[0].candidate
    v = chosen.vector
    return {
        "source": v.layer, "site": v.site, "target": None if v.target is None else str(v.target), "rank": v.rank,
        "method": v.method, "sign": chosen.sign, "scale": chosen.scale, "norm": abs(v.scale),
        "validation": chosen.score, "test": _measured(result.test), "unsteered": _measured(result.unsteered[1]),
        "gain": _measured(result.gain), "random": [_measured(r.test) for r in result.random],
        "beats_random": result.beats_random if result.random else None, "share": _measured(result.share),
        "random_share": None if result.random_share is None else _measured(result.random_share),
    }  # fmt: skip


def _measured(m: MetricResult) -> dict[str, Any]:
    return {key: None if value != value else value for key, value in (("value", m.value), ("low", m.low), ("high", m.high), ("n", m.n))}


_INTERVAL = "value, low, high (95%), n"
COMMAND = Command(
    summary="Select a vector, sign and scale by what the model then generates, and report it on other prompts.",
    example="run/ --wanted dog --validation validation.jsonl --test test.jsonl --rank 0 --n-random 2 --max-new-tokens 8",
    subject="",
    arguments=_arguments,
    run=_search,
    json={
        "source": "layer of the selected vector",
        "site": "site it is added to",
        "target": "site, next_token, logits or null",
        "rank": "among the singular vectors of its pair, or null",
        "method": "how it was found",
        "sign": "1 or -1",
        "scale": "of the site's mean activation norm",
        "norm": "absolute length added",
        "validation": "share of the validation prompts, on which it was selected",
        "test": f"share of the test prompts: {_INTERVAL}",
        "unsteered": "likewise, without a vector",
        "gain": "likewise, the difference",
        "random": "likewise, a list: of each search among equally many random vectors",
        "beats_random": "whether the whole interval of the test lies above all of these",
        "share": "of vectors that pass on validation, at some sign and scale",
        "random_share": "of the random ones",
    },
)
