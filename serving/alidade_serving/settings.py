"""Settings of a server, each a flag of `alidade-serve` and an environment variable of the same name."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alidade_crds.modelserve import DEFAULT_TOTAL_TOKENS
from alidade_engine.gguf.quantization import QUANTIZATION_TYPES
from alidade_serving.front.flags import Flags, between, seconds

PREFIX = "ALIDADE_SERVE_"


@dataclass(frozen=True)
class Settings:
    """What a server serves and where it stops; `parser` says what each means."""

    model: Path
    name: str
    host: str
    port: int
    quantization: str
    cache: Path
    slots: int
    threads: int
    max_input_tokens: int
    max_total_tokens: int
    max_concurrent_requests: int
    max_stop_sequences: int
    max_body_bytes: int
    keys_from: Path | None
    adapters: dict[str, Path]
    draft_model: Path | None
    draft_tokens: int
    prompt_lookup_tokens: int
    read_timeout_s: float
    write_timeout_s: float
    stall_timeout_s: float
    drain_delay_s: float
    drain_timeout_s: float

    def within(self, context_length: int) -> "Settings":
        """With the limits on tokens that were left to the model, which has this context."""
        total = self.max_total_tokens or min(DEFAULT_TOTAL_TOKENS, context_length)
        return replace(self, max_total_tokens=total, max_input_tokens=self.max_input_tokens or total // 2)


def read_settings(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Flags over environment over defaults. Ends with exit code 2 and a sentence when they do not go together."""
    parser = _parser(environment)
    options = parser.parse_args(argv)
    if options.model is None:
        parser.error(f"--model is missing; name a folder in Hugging Face format or a .gguf file ({PREFIX}MODEL).")
    if options.max_total_tokens and max(1, options.max_input_tokens) >= options.max_total_tokens:
        parser.error(
            f"--max-input-tokens is {options.max_input_tokens} and --max-total-tokens {options.max_total_tokens}; an "
            "answer needs at least one token more than its prompt."
        )
    if options.draft_model is not None and options.prompt_lookup_tokens:
        parser.error("--draft-model and --prompt-lookup-tokens both propose tokens; set one of them.")
    if options.adapters and options.model.is_file():
        parser.error("--adapters needs --model to be the folder that the adapters were trained on, not a file.")
    if options.slots > options.max_concurrent_requests:
        parser.error(
            f"--slots is {options.slots} and --max-concurrent-requests {options.max_concurrent_requests}; a slot that "
            "no request may take is memory wasted. Raise the second or lower the first."
        )
    settings = vars(options)
    settings["name"] = options.name or options.model.resolve().name.removesuffix(".gguf")
    settings["threads"] = options.threads or usable_cpus()
    return Settings(**settings)


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alidade-serve",
        description="Serves a language model on CPUs over text-generation-inference's and OpenAI's HTTP APIs.",
        epilog=f"Each flag is also read from the environment, such as {PREFIX}MAX_TOTAL_TOKENS.",
    )

    add = Flags(parser, PREFIX, environment).add
    add("--model", Path, None, "folder in Hugging Face format, or a .gguf file")
    add("--name", str, "", "name under which clients ask for the model (default: the folder's)")
    add("--host", str, "0.0.0.0", "address to listen on (default: all)")
    add("--port", between(0, 65535), "8080", "port to listen on; 0 takes a free one (default: 8080)")
    add("--quantization", _quantization, "f16", "type that a folder is converted to (default: f16)")
    add("--cache", Path, "/scratch/gguf", "folder that keeps converted models (default: /scratch/gguf)")
    add("--slots", between(1, 256), "8", "requests that generate at once (default: 8)")
    add("--threads", between(0, 1024), "0", "threads that compute (default: the CPUs it may use)")
    add("--max-input-tokens", between(0, 1_048_576), "0", "longest prompt, in tokens (default: half of the next)")
    usual = f"{DEFAULT_TOTAL_TOKENS}, or the model's context where that is shorter"
    add("--max-total-tokens", between(0, 1_048_576), "0", f"longest prompt and answer, in tokens (default: {usual})")
    add("--max-concurrent-requests", between(1, 65536), "128", "requests at once; more get 429 (default: 128)")
    add("--max-stop-sequences", between(0, 64), "4", "most stop sequences of a request (default: 4)")
    add("--max-body-bytes", between(1024, 1 << 30), "2097152", "longest request body, in bytes (default: 2 MiB)")
    add("--keys-from", Path, None, "file, or folder of files, with one accepted bearer key a line (default: no key)")
    add("--adapters", _adapters, "", "LoRA adapters served beside the model: NAME=FOLDER,NAME=FOLDER (default: none)")
    add("--draft-model", Path, None, "small model of the same tokenizer that proposes tokens")
    add("--draft-tokens", between(1, 64), "3", "tokens that the draft model proposes at once (default: 3)")
    add("--prompt-lookup-tokens", between(0, 64), "0", "tokens proposed from repetitions in the text (default: none)")
    add("--read-timeout-s", seconds, "15", "time for a request to arrive, in seconds (default: 15)")
    add("--write-timeout-s", seconds, "30", "time that a client may leave an answer unread (default: 30)")
    add("--stall-timeout-s", seconds, "120", "time without a token until it counts as dead (default: 120)")
    add("--drain-delay-s", seconds, "2", "time between refusing readiness and refusing requests (default: 2)")
    add("--drain-timeout-s", seconds, "25", "time for answers to end after SIGTERM, in seconds (default: 25)")
    return parser


def _adapters(text: str) -> dict[str, Path]:
    adapters: dict[str, Path] = {}
    for entry in filter(None, text.split(",")):
        name, separator, folder = entry.partition("=")
        if not (name and separator and folder) or name in adapters:
            raise argparse.ArgumentTypeError(f"{entry!r} is not NAME=FOLDER with a name of its own")
        adapters[name] = Path(folder)
    return adapters


def _quantization(text: str) -> str:
    if text not in QUANTIZATION_TYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(QUANTIZATION_TYPES)}")
    return text


def usable_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: its affinity, and the quota of its container where there is one.

    More threads than that wait for one another in each matrix product.
    """
    cpus = len(os.sched_getaffinity(0))
    if quota.is_file():
        allowed, period = quota.read_text("ascii").split()
        if allowed != "max":
            cpus = min(cpus, max(1, int(allowed) // int(period)))
    return cpus
