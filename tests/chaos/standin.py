"""The programs of a run in small: what trainer, evaluator, quantizer and server promise of themselves, in a second.

A job's state is a hash that every step goes into: a step that is lost or done twice gives another model. Steps, starts
and ends are written to a ledger on the volume. As with the real ones, a job goes on from its newest checkpoint, tells
its result again where it finds it made, saves at SIGTERM, and fails for another try when a process beside it is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.server
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

STEPS, STEP_S, CHECKPOINT_EVERY = 6, 0.08, 2
WORKSPACE = "alidade-workspace"
LEDGER = "ledger.jsonl"
PEER_S = 30.0
RETRY, TERMINATED = 75, 143


class TerminatedError(Exception):
    """SIGTERM."""


def path_of(uri: str) -> Path:
    """Where a pod sees what `pvc://CLAIM/PATH` names."""
    return Path(os.environ["ALIDADE_VOLUMES"]) / uri.partition("://")[2]


def note(event: str, owner: dict[str, str], **more: Any) -> None:
    """Appends to the ledger."""
    line = {"event": event, "kind": owner["kind"], "name": owner["name"], "pod": os.environ["HOSTNAME"], **more}
    with path_of(f"pvc://{WORKSPACE}/{LEDGER}").open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line) + "\n")


def tell(result: dict[str, Any]) -> None:
    """Leaves the last word of the container."""
    document = {"version": "alidade.dev/result/v1", **result}
    Path(os.environ["ALIDADE_TERMINATION_LOG"]).write_text(json.dumps(document), encoding="utf-8")


def lose(reason: str) -> NoReturn:
    """Ends for another try."""
    tell({"outcome": "failed", "failure": {"reason": "WorkerLost", "message": reason, "retryable": True}})
    sys.exit(RETRY)


def write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{path.name}-{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def hashed(*parts: str) -> str:
    """The hash of some texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def inputs_of(document: dict[str, Any]) -> str:
    """What a job starts from: its models as they lie on the volume, each compared with the digest that it is told."""
    told = [document.get("model") or {}, *(one["model"] for one in document.get("models") or [])]
    told += (document.get("alignment") or {}).get("rewards") or []
    found = []
    for model in told:
        weights = path_of(model["uri"]) / "weights" if model.get("uri") else None
        digest = f"sha256:{hashed(weights.read_text(encoding='utf-8'))}" if weights is not None else "none"
        assert model.get("digest") in (None, digest), f"{model} has the digest {digest}"
        found.append(digest)
    return hashed(str(document.get("stage")), *found)


@contextlib.contextmanager
def place(folder: Path, rank: int, owner: dict[str, str]) -> Iterator[TextIO]:
    """This rank's place at an output, which ends with the process; to find it taken is what must never be."""
    with (folder / f".rank-{rank}").open("a", encoding="utf-8") as taken:
        if not locked(taken):
            note("overlap", owner, rank=rank)
            lose("Another process writes to this output.")
        yield taken


def locked(file: TextIO) -> bool:
    """Whether the lock was free, and is taken now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_there(folder: Path, rank: int) -> bool:
    """Whether a process has the place of a rank."""
    with (folder / f".rank-{rank}").open("a", encoding="utf-8") as other:
        if not locked(other):
            return True
    return False


def wait_for(folder: Path, ranks: list[int]) -> None:
    """Waits until the others are there."""
    until = time.monotonic() + PEER_S
    while not all(is_there(folder, rank) for rank in ranks):
        if time.monotonic() > until:
            lose("Another training process did not come.")
        time.sleep(0.05)


def work(document: dict[str, Any]) -> dict[str, Any]:
    """Does a job's steps, or finds them done; returns its result."""
    owner, folder = document["owner"], path_of(document["output"])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    made = folder / "result.json"
    note("begin", owner, rank=rank)
    with place(folder, rank, owner):
        others = [other for other in range(world) if other != rank]
        if not made.exists():
            wait_for(folder, others)
        if rank:
            accompany(folder, made)
        elif not made.exists():
            result = stepwise(document, folder, others)
            write(made, json.dumps(result))
            note("end", owner)
        found: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
        return found


def accompany(folder: Path, made: Path) -> None:
    """Another rank's part: to be there until the first one is done."""
    while not made.exists():
        if not is_there(folder, 0):
            time.sleep(0.1)  # its last act may have been to finish
            if made.exists():
                return
            lose("The first training process is gone.")
        time.sleep(0.05)


def stepwise(document: dict[str, Any], folder: Path, others: list[int]) -> dict[str, Any]:
    """The steps from the newest checkpoint on, and what comes of them."""
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    step = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0
    state = checkpoints[-1].read_text(encoding="utf-8") if checkpoints else inputs_of(document)
    try:
        while step < STEPS:
            time.sleep(STEP_S)
            if not all(is_there(folder, rank) for rank in others):
                lose("Another training process is gone.")
            step, state = step + 1, hashed(state, str(step + 1))
            note("step", document["owner"], step=step)
            if step % CHECKPOINT_EVERY == 0:
                write(folder / "checkpoints" / f"step-{step}", state)
    except TerminatedError:
        write(folder / "checkpoints" / f"step-{step}", state)
        tell({"outcome": "terminated", "step": step})
        sys.exit(TERMINATED)
    return outcome(document, folder, state)


def outcome(document: dict[str, Any], folder: Path, state: str) -> dict[str, Any]:
    """Writes what a job is for, and tells of it."""
    if "suites" in document:
        from alidade_crds.evaluation import EvaluationResult
        from alidade_crds.packed import PackedResults

        rows = [
            EvaluationResult(suite="perplexity", metric="perplexity", model=one["name"], value=12.5, n=100)
            for one in document["models"]
        ]
        return {"outcome": "succeeded", "evaluation": PackedResults.of(rows).model_dump(by_alias=True)}
    if "method" in document:
        write(folder / "model.gguf", state)
        file = f"{document['output']}/model.gguf"
        report = {"method": document["method"], "uri": file, "sha256": hashed(state), "sizeBytes": len(state)}
        return {"outcome": "succeeded", "quantization": report | {"type": document.get("type")}}
    (folder / "model").mkdir(exist_ok=True)
    write(folder / "model" / "weights", state)
    model = {"uri": f"{document['output']}/model", "digest": f"sha256:{hashed(state)}"}
    counts = {"parameters": 1000, "trainableParameters": 1000}
    step = {"alignStep": "1-raft"} if document["stage"] == "align" else {}
    return {"outcome": "succeeded", "model": model | counts, "step": STEPS, "metrics": {"reward": 1.0}, **step}


class Answers(http.server.BaseHTTPRequestHandler):
    """200 to everything."""

    def do_GET(self) -> None:  # the library's name
        """Healthy."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # the library's name
        """Says nothing."""


def serve(flags: dict[str, str]) -> None:
    """Serves a model that is there, until SIGTERM."""
    assert Path(flags["--model"]).exists(), f"{flags['--model']} is not there"
    server = http.server.ThreadingHTTPServer((flags["--host"], int(flags["--port"])), Answers)
    with contextlib.suppress(TerminatedError):
        server.serve_forever()


def main(argv: list[str]) -> int:
    """As `alidade-trainer run`, `alidade-trainer quantize`, `alidade-eval run` or `alidade-serve`."""

    def end(*_: Any) -> NoReturn:
        raise TerminatedError

    signal.signal(signal.SIGTERM, end)
    if Path(argv[0]).name == "alidade-serve":
        serve(dict(argument.split("=", 1) for argument in argv[1:]))
        return 0
    try:
        tell(work(json.loads(Path(os.environ["ALIDADE_JOB"]).read_text(encoding="utf-8"))))
    except TerminatedError:
        tell({"outcome": "terminated"})
        return TERMINATED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
