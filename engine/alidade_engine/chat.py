"""`alidade-chat`: questions to a model in a folder, answered in the terminal."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def main(argv: Sequence[str] | None = None) -> int:
    """Answers each --prompt and ends, or talks until the input ends. Exit code 1 when the model cannot be used."""
    options = _parser().parse_args(argv)
    _be_quiet()
    # Imported here so that --help and mistakes in the arguments answer at once.
    from alidade_engine.imports import large_imports

    with large_imports():
        from alidade_engine.failures import JobFailure
        from alidade_engine.models import load_model, load_tokenizer

    try:
        tokenizer = load_tokenizer(options.model)
        model = load_model(options.model)
        if options.prompt:
            _answer_once(model, tokenizer, options)
        else:
            _talk(model, tokenizer, options)
    except JobFailure as failure:
        print(f"alidade-chat: --model: {failure.message}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"alidade-chat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alidade-chat", description=__doc__)
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="folder of a model in Hugging Face format"
    )
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="a question; may be repeated")
    parser.add_argument("--system", default="", metavar="TEXT", help="a system message before each conversation")
    parser.add_argument("--temperature", type=_at_least_0, default=0.0, help="0 takes the likeliest token (default: 0)")
    parser.add_argument("--top-p", type=float, default=1.0, help="share of probability that is drawn from (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    parser.add_argument("--json", action="store_true", help="one JSON object per answer instead of text")
    return parser


def _at_least_0(text: str) -> float:
    value = float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _be_quiet() -> None:
    """Keeps progress bars and notes of the libraries off the terminal."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()


def _start(system: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}] if system else []


def _answer_once(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", options: argparse.Namespace) -> None:
    from alidade_engine.sampling import generate

    conversations = [[*_start(options.system), {"role": "user", "content": prompt}] for prompt in options.prompt]
    answers = generate(
        model,
        tokenizer,
        conversations,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    for prompt, answer in zip(options.prompt, answers, strict=True):
        if options.json:
            record = {
                "prompt": prompt,
                "answer": answer.text,
                "finishReason": answer.finish_reason,
                "promptTokens": len(answer.prompt_ids),
                "answerTokens": len(answer.token_ids),
            }
            print(json.dumps(record, ensure_ascii=False))
        else:
            print(answer.text)


def _talk(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", options: argparse.Namespace) -> None:
    from alidade_engine.sampling import generate

    messages = _start(options.system)
    while (line := _read_line()) is not None:
        if not line.strip():
            continue
        messages.append({"role": "user", "content": line})
        (answer,) = generate(
            model,
            tokenizer,
            [messages],
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed + len(messages),
            on_token=_printer(tokenizer),
        )
        print()
        messages.append({"role": "assistant", "content": answer.text})


def _read_line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _printer(tokenizer: "PreTrainedTokenizerBase") -> Callable[[int, int], None]:
    """Prints what each token adds; a character of several tokens waits until it is whole."""
    tokens: list[int] = []
    shown = 0

    def show(_: int, token: int) -> None:
        nonlocal shown
        tokens.append(token)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if not text.endswith("\ufffd"):
            print(text[shown:], end="", flush=True)
            shown = len(text)

    return show


if __name__ == "__main__":
    sys.exit(main())
