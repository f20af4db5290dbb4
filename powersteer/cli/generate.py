"""`powersteer generate`: continue prompts, steered or not."""

from __future__ import annotations

from argparse import Namespace

from ..errors import InvalidInput
from ..inputs.prompts import title
from ..vectors.saved import load_vectors
from .arguments import PROMPTS, Argument, Command, given, load_model, nonempty, positions, read_prompts
from .console import json_object, print_json
from .vectors import STRENGTH, scaled


def _generate(args: Namespace) -> int:
    for name in ("relative", "scale", "positions", "compare"):  # which would do nothing without a vector
        if getattr(args, name) is not None and not args.steer:
            raise InvalidInput(f"--{name} needs a vector: --steer FILE")
    prompts = read_prompts(args)
    saved = [v for file in args.steer for v in load_vectors(file)]
    model = load_model(args)
    vectors = scaled(saved, args, model, prompts)
    variants = [("steered" if vectors else "unsteered", vectors)]
    if args.compare:
        variants = [("unsteered", []), ("steered", vectors), ("steered the other way", [-v for v in vectors])]
    options = given(args, "max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
    found = []
    for variant, chosen in variants:
        view = model.steered(chosen, positions=args.positions) if chosen else model
        for prompt in prompts:
            if args.json:
                found.append((variant, prompt, view.generate(prompt, **options)))
                continue
            stream = view.generate(prompt, stream=True, **options)  # refuses before anything is printed
            if len(variants) * len(prompts) > 1:
                print(f"--- {variant}: {title(prompt)}")
            print(prompt if isinstance(prompt, str) else "", end="", flush=True)
            for piece in stream:
                print(piece, end="", flush=True)
            print()
    if args.json:
        print_json(json_object(COMMAND.json, model, found))
    return 0


COMMAND = Command(
    summary="Continue a prompt, steered or not.",
    example='path/to/model --prompt "Once upon a time" --steer run/0.safetensors --relative 0.5',
    arguments=(
        *PROMPTS,
        Argument("--steer", action="append", default=[], type=nonempty, metavar="FILE",
                 help="saved vectors, .safetensors or .gguf, all of them added, or clamped by; may be repeated"),
        *STRENGTH,
        Argument("--positions", type=positions, help="where to steer: prompt, generated, -2: or 3,5 (default all)"),
        Argument("--compare", action="store_true", default=None, help="unsteered and both signs, one after the other"),
        Argument("--max-new-tokens", type=int, default=64, help="default 64"),
        Argument("--temperature", type=float, default=0.0, help="0 (default): greedy"),
        Argument("--top-k", type=int, default=0, help="draw among so many tokens (default 0: all)"),
        Argument("--top-p", type=float, default=1.0, help="draw within this probability (default 1)"),
        Argument("--seed", type=int, default=0, help="of the draws (default 0)"),
        Argument("--stop", action="append", metavar="TEXT", help="stop at this text instead of the end token"),
    ),
    run=_generate,
    json={
        "model": ("name, model_type, n_layers, d_model, n_vocab, and weights: their fingerprint", lambda model, _: model.identity),
        "generations": ("a list, variant by variant, of objects:", lambda _, generations: generations),
        "generations.variant": ("unsteered, steered, or steered the other way", lambda variant, *_: variant),
        "generations.prompt": ("its text, or a chat's messages", lambda _, prompt, made: prompt),
        "generations.text": "generated text, without the text that stopped it",
        "generations.tokens": ("ids of the new tokens, including those that stopped it", lambda *found: found[-1].tokens.tolist()),
        "generations.prompt_tokens": ("ids", lambda *found: found[-1].prompt_tokens.tolist()),
        "generations.finish_reason": "stop or length",
        "generations.stop": "text or token id that ended it, or null",
        "generations.seed": "of its draws",
        "generations.steering": "its interventions, described",
    },
)
