"""`powersteer generate`: continue prompts, steered or not."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from ..errors import InvalidInput
from ..inputs.prompts import title
from ..model.generation import Generation
from ..vectors.steering_vector import load_vectors
from .arguments import Command, Parser, add_positions, add_prompts, load_model, nonempty, number, read_prompts, whole
from .console import print_json
from .vectors import add_strength, scaled


def _arguments(parser: Parser) -> None:
    add_prompts(parser)
    parser.add_argument("--steer", action="append", default=[], type=nonempty, metavar="FILE",
                        help="saved vectors, .safetensors or .gguf, all of them added; may be repeated")  # fmt: skip
    add_strength(parser)
    add_positions(parser, "where to steer: prompt, generated, -2: or 3,5 (default all)")
    parser.add_argument("--compare", action="store_true", help="unsteered and both signs, one after the other")
    parser.add_argument("--max-new-tokens", type=whole, default=64, help="default 64")
    parser.add_argument("--temperature", type=number, default=0.0, help="0 (default): greedy")
    parser.add_argument("--top-k", type=whole, default=0, help="draw among so many tokens (default 0: all)")
    parser.add_argument("--top-p", type=number, default=1.0, help="draw within this probability (default 1)")
    parser.add_argument("--seed", type=whole, default=0, help="of the draws (default 0)")
    parser.add_argument("--stop", action="append", metavar="TEXT", help="stop at this text instead of the end token")


def _generate(args: Namespace) -> int:
    _need_steer(args)
    prompts = read_prompts(args)
    saved = [v for file in args.steer for v in load_vectors(file)]
    model = load_model(args)
    vectors = scaled(saved, args, model, prompts)
    variants = [("steered" if vectors else "unsteered", vectors)]
    if args.compare:
        variants = [("unsteered", []), ("steered", vectors), ("steered the other way", [-v for v in vectors])]
    options = {
        "max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_k": args.top_k,
        "top_p": args.top_p, "seed": args.seed, "stop": args.stop,
    }  # fmt: skip
    found = []
    for variant, chosen in variants:
        view = model.steered(chosen, positions=args.positions) if chosen else model
        for prompt in prompts:
            if args.json:
                found.append(_generation(variant, prompt, view.generate(prompt, **options)))
                continue
            stream = view.generate(prompt, stream=True, **options)  # refuses before anything is printed
            if len(variants) * len(prompts) > 1:
                print(f"--- {variant}: {title(prompt)}")
            print(prompt if isinstance(prompt, str) else "", end="", flush=True)
            for piece in stream:
                print(piece, end="", flush=True)
            print()
    if args.json:
        print_json({"model": model.identity, "generations": found})
    return 0


def _need_steer(args: Namespace) -> None:
    """Refuse options of steering without a vector: they would do nothing."""
    given = {
        "--relative": args.relative is not None, "--scale": args.scale is not None,
        "--positions": args.positions is not None, "--compare": args.compare,
    }  # fmt: skip
    for name, is_given in given.items():
        if is_given and not args.steer:
            raise InvalidInput(f"{name} needs a vector: --steer FILE")


def _generation(variant: str, prompt: Any, made: Generation) -> dict[str, Any]:
    return {
        "variant": variant, "prompt": prompt, "text": made.text, "tokens": made.tokens.tolist(),
        "prompt_tokens": made.prompt_tokens.tolist(), "finish_reason": made.finish_reason, "stop": made.stop,
        "seed": made.seed, "steering": list(made.steering),
    }  # fmt: skip


COMMAND = Command(
    summary="Continue a prompt, steered or not.",
    example='path/to/model --prompt "Once upon a time" --steer run/0.safetensors --relative 0.5',
    arguments=_arguments,
    run=_generate,
    json={
        "model": "name, model_type, n_layers, d_model, n_vocab, and weights: their fingerprint",
        "generations": "a list, variant by variant, of objects:",
        "generations.variant": "unsteered, steered, or steered the other way",
        "generations.prompt": "its text, or a chat's messages",
        "generations.text": "generated text, without the text that stopped it",
        "generations.tokens": "ids of the new tokens, including those that stopped it",
        "generations.prompt_tokens": "ids",
        "generations.finish_reason": "stop or length",
        "generations.stop": "text or token id that ended it, or null",
        "generations.seed": "of its draws",
        "generations.steering": "its interventions, described",
    },
)
