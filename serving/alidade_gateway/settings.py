"""Settings of a gateway, each a flag of `alidade-gateway` and an environment variable of the same name."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from alidade_serving.front.flags import Flags, between, seconds

PREFIX = "ALIDADE_GATEWAY_"


@dataclass(frozen=True)
class Settings:
    """What a gateway stands before and where it stops; `parser` says what each means. Addresses end without a slash."""

    name: str
    namespace: str
    host: str
    port: int
    stable: str
    canary: str | None
    canary_percent: int
    stable_model: str
    canary_model: str
    hold_s: float
    max_waiting: int
    max_body_bytes: int
    max_held_bytes: int
    keys_from: Path | None
    chat: bool
    arena: bool
    arena_against: str | None
    arena_against_name: str
    arena_against_model: str
    votes: Path | None
    read_timeout_s: float
    write_timeout_s: float
    connect_timeout_s: float
    answer_timeout_s: float
    drain_delay_s: float
    drain_timeout_s: float


def read_settings(argv: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Flags over environment over defaults. Ends with exit code 2 and a sentence when they do not go together."""
    parser = _parser(environment)
    options = parser.parse_args(argv)
    for flag, value in (("--name", options.name), ("--stable", options.stable)):
        if not value:
            variable = PREFIX + flag.removeprefix("--").upper()
            parser.error(f"{flag} is missing; a gateway stands before a named model at an address ({variable}).")
    if options.canary_percent and options.canary is None:
        parser.error(f"--canary-percent is {options.canary_percent}, and --canary does not say where the canary is.")
    if options.max_held_bytes < options.max_body_bytes:
        parser.error(
            f"--max-held-bytes is {options.max_held_bytes} and --max-body-bytes {options.max_body_bytes}; a body that "
            "is allowed has to fit into the memory for bodies. Raise the first or lower the second."
        )
    if options.arena and options.votes is None:
        parser.error("--arena is true, and --votes does not name the folder that keeps the votes.")
    if options.arena and options.arena_against is None and options.canary is None:
        parser.error("--arena is true, and there is nothing to compare with: set --arena-against or --canary.")
    return Settings(**vars(options))


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alidade-gateway",
        description="Stands before the replicas of a served model: splits, retries and holds requests, counts answers.",
        epilog=f"Each flag is also read from the environment, such as {PREFIX}CANARY_PERCENT.",
    )
    add = Flags(parser, PREFIX, environment).add
    add("--name", str, "", "name under which the model is served")
    add("--namespace", str, "default", "namespace that it is served in (default: default)")
    add("--host", str, "0.0.0.0", "address to listen on (default: all)")
    add("--port", between(0, 65535), "8080", "port to listen on; 0 takes a free one (default: 8080)")
    add("--stable", _url, None, "URL of the model that serves, such as http://kbqa-stable.default.svc")
    add("--canary", _url, None, "URL of the new model that gets a share of the requests (default: there is none)")
    add("--canary-percent", between(0, 100), "0", "share of the requests that the canary gets, in percent (default: 0)")
    add("--stable-model", str, "", "address of the model that serves, for records")
    add("--canary-model", str, "", "address of the new model, for records")
    add("--hold-s", seconds, "60", "time that a request is held while no replica answers, in seconds (default: 60)")
    add("--max-waiting", between(0, 65536), "100", "requests held at once; more get 429 (default: 100)")
    add("--max-body-bytes", between(1024, 1 << 30), "2097152", "longest request body, in bytes (default: 2 MiB)")
    add(
        "--max-held-bytes",
        between(1024, 1 << 40),
        "134217728",
        "bodies kept until their answers begin, in bytes; more get 429 (default: 128 MiB)",
    )
    add("--keys-from", Path, None, "file, or folder of files, with one accepted bearer key a line (default: no key)")
    add("--chat", _truth, "false", "whether /chat shows a page to talk to the model: true or false (default: false)")
    add("--arena", _truth, "false", "whether /arena compares two models blindly: true or false (default: false)")
    add("--arena-against", _url, None, "URL of the arena's other side (default: the sides are stable and canary)")
    add("--arena-against-name", str, "", "name of the other side's ModelServe")
    add("--arena-against-model", str, "", "address of the other side's model, for records")
    add("--votes", Path, None, "folder that keeps the votes of the arena")
    add("--read-timeout-s", seconds, "15", "time for a request to arrive, in seconds (default: 15)")
    add("--write-timeout-s", seconds, "30", "time that a client may leave an answer unread (default: 30)")
    add("--connect-timeout-s", seconds, "3", "time to reach a replica, in seconds (default: 3)")
    add("--answer-timeout-s", seconds, "600", "time a replica may say nothing until it counts as dead (default: 600)")
    add("--drain-delay-s", seconds, "2", "time between refusing readiness and refusing requests (default: 2)")
    add("--drain-timeout-s", seconds, "25", "time for answers to end after SIGTERM, in seconds (default: 25)")
    return parser


def _url(text: str) -> str | None:
    """An HTTP address without path; the empty text stands for none, as an environment cannot leave out."""
    if not text:
        return None
    parts = urlsplit(text)
    try:
        is_address = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_address = False
    if not is_address or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL such as http://kbqa-stable.default.svc")
    return text.rstrip("/")


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text == "true"
