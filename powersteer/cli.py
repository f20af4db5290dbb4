"""The command line: `powersteer info | svd | generate`, also as `python -m powersteer`.

Results go to standard output, progress and warnings to standard error. Exit code 2 and one line on bad input, 1 if an
SVD misses its tolerance, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._version import __version__
from .errors import InvalidInput, PowersteerError
from .files import write_text
from .generation import Generation
from .model import Model, load
from .sites import SITES
from .svd import SVDResult
from .vectors import SteeringVector

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    args = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        return args.run(args)  # type: ignore[no-any-return]
    except PowersteerError as error:
        print(f"powersteer: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("powersteer: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        return 0


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"powersteer: warning: {message}", file=sys.stderr)


# ---- arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="powersteer", description="Directions that move a language model's later layers.")
    parser.add_argument("--version", action="version", version=f"powersteer {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=help, description=help, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        sub.add_argument("model", help="checkpoint folder, hub id in the Hugging Face cache, or .gguf file")
        sub.add_argument("--dtype", default="float32", help="of the arithmetic: float32 (default) or float64")
        sub.add_argument("--threads", type=int, help="default: the physical cores")
        sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
        return sub

    command("info", _info, "What a checkpoint is, and how it will be computed.", "powersteer info path/to/model")

    svd = command(
        "svd", _svd, "Singular directions of the Jacobian between two sites of a prompt.",
        'powersteer svd path/to/model --prompt "Once upon a time" --source 1 --target 4 -k 12 --save run/',
    )  # fmt: skip
    _prompt_arguments(svd)
    svd.add_argument("--source", required=True, help="layer, or a site such as blocks.1.hook_mlp_out")
    svd.add_argument("--target", required=True, help="layer, site, next_token or logits")
    svd.add_argument("--source-site", help=f"with a layer: {', '.join(SITES)} (default mlp_out)")
    svd.add_argument("--target-site", help="likewise")
    svd.add_argument("--positions", type=_positions, help="target positions: -2: or 3,5 (default: the last two, or the last)")
    svd.add_argument("-k", type=int, default=12, help="how many triplets (default 12)")
    svd.add_argument("--method", default="krylov", help="krylov (default), power (the published algorithm) or dense")
    svd.add_argument("--tol", type=float, default=1e-3, help="largest residual over sigma_1 (default 1e-3)")
    svd.add_argument("--iterations", type=int, default=5, help="of power (default 5)")
    svd.add_argument("--max-applications", type=int, help="budget of krylov")
    svd.add_argument("--seed", type=int, default=0)
    svd.add_argument("--save", metavar="FOLDER", help="write 0.safetensors, 1.safetensors, ... and svd.json")

    generate = command(
        "generate", _generate, "Continue a prompt, steered or not.",
        'powersteer generate path/to/model --prompt "Once upon a time" --steer run/0.safetensors --relative 0.5',
    )  # fmt: skip
    _prompt_arguments(generate)
    generate.add_argument("--steer", action="append", default=[], metavar="FILE", help="a saved vector; may be repeated")
    scale = generate.add_mutually_exclusive_group()
    scale.add_argument("--relative", type=float, help="strength, as a multiple of the site's activation norm")
    scale.add_argument("--scale", type=float, help="strength, absolute (default: as saved)")
    generate.add_argument("--positions", type=_positions, help="where to steer: prompt, generated, -2: or 3,5 (default all)")
    generate.add_argument("--compare", action="store_true", help="unsteered and both signs, one after the other")
    generate.add_argument("--max-new-tokens", type=int, default=64)
    generate.add_argument("--temperature", type=float, default=0.0, help="0 (default): greedy")
    generate.add_argument("--top-k", type=int, default=0)
    generate.add_argument("--top-p", type=float, default=1.0)
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--stop", action="append", metavar="TEXT", help="stop at this text instead of the end token")
    return parser


def _prompt_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    sub.add_argument("--prompt-file", action="append", default=[], metavar="FILE", help="a prompt, the whole file")
    sub.add_argument("--chat", action="store_true", help="render prompts with the model's chat template")


def _positions(text: str) -> Any:
    """ "prompt", "-2:", "1:4", "3,5" -> what the API takes"""
    if text in ("all", "prompt", "generated"):
        return text
    try:
        if ":" in text:
            return slice(*(int(part) if part.strip() else None for part in text.split(":")))
        return [int(part) for part in text.split(",")]
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is no position, list (3,5) or range (-2:)") from None


def _prompts(args: argparse.Namespace) -> list[Any]:
    texts = list(args.prompt)
    for name in args.prompt_file:
        try:
            texts.append(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read the prompt file {name}: {error}") from error
    if not texts:
        raise InvalidInput("no prompt: give --prompt TEXT or --prompt-file FILE")
    return [[{"role": "user", "content": text}] for text in texts] if args.chat else texts


def _place(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text


def _load(args: argparse.Namespace) -> Model:
    return load(args.model, dtype=args.dtype, threads=args.threads)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


# ---- commands


def _info(args: argparse.Namespace) -> int:
    model = _load(args)
    spec = model.spec
    facts = {
        "name": model.name,
        "model_type": model.identity.get("model_type"),
        "weights": model.identity.get("weights"),
        "parameters": spec.n_params,
        "weight_bytes": spec.nbytes,
        "stored_as": sorted({"bfloat16" if str(a.dtype) == "uint16" else str(a.dtype) for a in spec.arrays() if a.ndim > 1}),
        "layers": spec.n_layers,
        "d_model": spec.d_model,
        "heads": spec.n_heads,
        "kv_heads": spec.n_kv_heads,
        "d_ff": spec.d_ff,
        "vocabulary": spec.n_vocab,
        "context": spec.n_ctx,
        "sites": [site for site in SITES if not (site == "resid_mid" and spec.parallel)],
        "chat_template": model.tokenizer is not None and bool(model.tokenizer.templates),
        "dtype": str(model.dtype),
        "threads": model.threads,
    }
    if args.json:
        _print_json(facts)
        return 0
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else f"{value:,}" if type(value) is int else value
        print(f"{name.replace('_', ' '):<14} {text}")
    return 0


def _svd(args: argparse.Namespace) -> int:
    model, prompts = _load(args), _prompts(args)
    positions = {} if args.positions is None else {"positions": args.positions}
    what = (prompts, _place(args.source), _place(args.target), args.source_site, args.target_site)
    said = model.estimate(*what, k=args.k, **positions)
    if said.peak > 1e9 or said.flops * 10 * args.k > 1e12:  # about ten applications a triplet: some seconds
        print(f"{model}\n{said}", file=sys.stderr)
    J = model.jacobian(*what, **positions)
    result = J.svd(
        args.k, args.method, tol=args.tol, max_applications=args.max_applications, seed=args.seed,
        iterations=args.iterations, progress=sys.stderr.isatty(),
    )  # fmt: skip
    summary = _summary(args, model, J, result)
    if args.save:
        folder = Path(args.save)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"cannot make the folder {folder}: {error}") from error
        for vector in result.vectors:
            vector.save(folder / f"{vector.rank}.safetensors")
        write_text(folder / "svd.json", json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    if args.json:
        _print_json(summary)
    else:
        print(f"{J}\nmean activation norm at the source: {J.source_norm:.4g}")
        print(result)
        if args.save:
            print(f"saved {len(result.S)} vectors and svd.json in {args.save}")
    return 0 if result.converged or args.method == "power" else 1


def _summary(args: argparse.Namespace, model: Model, J: Any, result: SVDResult) -> dict[str, Any]:
    return {
        "model": model.identity,
        "source": str(J.source),
        "target": str(J.target),
        "shape": list(J.shape),
        "prompt_tokens": [tokens.tolist() for tokens in J.prompt_tokens],
        "positions": [positions.tolist() for positions in J.positions],
        "source_norm": J.source_norm,
        "method": result.method,
        "tol": result.tol,
        "seed": result.seed,
        "sigma": result.S.tolist(),
        "residuals": result.residuals.tolist(),
        "converged": result.converged,
        "clusters": [list(ranks) for ranks in result.clusters],
        "cluster_open": result.cluster_open,
        "applications": result.applications,
        "certificate_applications": result.certificate_applications,
        "seconds": result.seconds,
        "dtype": str(model.dtype),
        "version": __version__,
    }


def _generate(args: argparse.Namespace) -> int:
    model, prompts = _load(args), _prompts(args)
    vectors = [_scaled(SteeringVector.load(name), args) for name in args.steer]
    if args.compare and not vectors:
        raise InvalidInput("--compare needs a vector: --steer FILE")
    variants = [("steered" if vectors else "unsteered", vectors)]
    if args.compare:
        variants = [("unsteered", []), ("steered", vectors), ("steered the other way", [-v for v in vectors])]
    options = {
        "max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_k": args.top_k,
        "top_p": args.top_p, "seed": args.seed, "stop": args.stop,
    }  # fmt: skip
    found = []
    for title, chosen in variants:
        view = model.steered(chosen, positions=args.positions) if chosen else model
        for prompt in prompts:
            if args.json:
                found.append(_generation(title, prompt, view.generate(prompt, **options)))
                continue
            if len(variants) * len(prompts) > 1:
                print(f"--- {title}" + (f": {prompt}" if isinstance(prompt, str) else ""))
            stream = view.generate(prompt, stream=True, **options)  # refuses before anything is printed
            print(prompt if isinstance(prompt, str) else "", end="", flush=True)
            for piece in stream:
                print(piece, end="", flush=True)
            print()
    if args.json:
        _print_json({"model": model.identity, "generations": found})
    return 0


def _scaled(vector: SteeringVector, args: argparse.Namespace) -> SteeringVector:
    if args.relative is not None:
        return vector.relative(args.relative)
    if args.scale is not None:
        return vector * (args.scale / vector.scale) if vector.scale else vector
    return vector


def _generation(title: str, prompt: Any, made: Generation) -> dict[str, Any]:
    return {
        "variant": title, "prompt": prompt, "text": made.text, "tokens": made.tokens.tolist(),
        "prompt_tokens": made.prompt_tokens.tolist(), "finish_reason": made.finish_reason, "stop": made.stop,
        "seed": made.seed, "steering": list(made.steering),
    }  # fmt: skip
