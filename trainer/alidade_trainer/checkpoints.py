"""Checkpoints that are complete or ignored, written and read by all processes together.

A checkpoint is the folder `step-N`: `engine/` as DeepSpeed writes it, `state.json`, and, written last, `complete.json`
with size and digest of every file. The folder bears another name until all of it is on the disk.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alidade_engine.digests import file_digest
from alidade_engine.disk import files_below, sync, write_file
from alidade_trainer.peers import Peers

MARKER = "complete.json"
STATE = "state.json"
PARTIAL_PREFIX = ".partial-"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class TrainingState:
    """What belongs to a checkpoint beside the engine's weights and optimizer states.

    The position in the data, the learning rate and the random numbers of a step are functions of the step;
    metrics.jsonl has the history.
    """

    step: int
    """Optimizer steps done."""
    fingerprint: str
    """Of the job (alidade_trainer.jobs)."""
    data_digest: str
    """Of the data and the tokenizer."""
    job: dict[str, Any]
    """The job document, to tell what differs."""
    processes: int
    """DeepSpeed's files are for this many processes."""
    micro_batch_size: int
    """Sequences per forward pass and process."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    state: TrainingState


class CheckpointStore:
    """The checkpoints of one output folder. Every process calls each method."""

    def __init__(self, folder: Path, peers: Peers, *, keep: int, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._peers = peers
        self._keep = keep
        self._log = log

    def save(self, state: TrainingState, write_engine: Callable[[Path], None]) -> None:
        """Writes a checkpoint; write_engine puts the engine's part into the folder it is given.

        Older checkpoints beyond the number to keep are deleted afterwards. When writing fails, nothing is left of it.
        """
        partial = self._folder / f"{PARTIAL_PREFIX}step-{state.step}"
        if self._peers.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._peers.wait()
        try:
            write_engine(partial)
            self._complete(partial, state)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._peers.wait()

    def _complete(self, partial: Path, state: TrainingState) -> None:
        if self._peers.is_first:
            write_file(partial / STATE, json.dumps(asdict(state)))
        self._peers.wait()
        mine = files_below(partial)[self._peers.rank :: self._peers.count]
        described = {str(path.relative_to(partial)): _describe(path) for path in mine}
        parts = self._peers.gather(described)
        if self._peers.is_first:
            files = {name: entry for part in parts for name, entry in part.items()}
            write_file(partial / MARKER, json.dumps({"files": files}))
            final = self._folder / f"step-{state.step}"
            shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step that was passed over
            partial.rename(final)
            sync(self._folder)
            self._delete_old()

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint. Cut-off and damaged ones are passed over with a line in the log."""
        if self._peers.is_first and self._folder.is_dir():
            for leftover in self._folder.glob(f"{PARTIAL_PREFIX}*"):
                self._log(
                    f"Checkpoint {leftover.name.removeprefix(PARTIAL_PREFIX)} was never completed; it is deleted."
                )
                shutil.rmtree(leftover)
        for folder in self._peers.from_first(self._folders()):
            fault = self._fault(folder)
            if fault is None:
                return Checkpoint(folder, TrainingState(**json.loads((folder / STATE).read_text())))
            if self._peers.is_first:
                self._log(f"Checkpoint {folder.name} is passed over: {fault}.")
        return None

    def _folders(self) -> list[Path]:
        """Folders that are named like checkpoints, the newest first."""
        found = [path for path in self._folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)

    def _fault(self, folder: Path) -> str | None:
        """What is wrong with a checkpoint, by the word of all processes, each of which looks at its share of the "
        "files."""
        files = self._peers.from_first(_read_marker(folder))
        if files is None:
            return f"it has no readable {MARKER}"
        share = sorted(files)[self._peers.rank :: self._peers.count]
        mine = next((fault for name in share if (fault := _file_fault(folder / name, files[name]))), None)
        return next((fault for fault in self._peers.gather(mine) if fault), None)

    def _delete_old(self) -> None:
        for folder in self._folders()[self._keep :]:
            # Without its marker it counts no more, so a deletion that is cut short leaves nothing that looks complete.
            (folder / MARKER).unlink(missing_ok=True)
            shutil.rmtree(folder)


def _describe(path: Path) -> dict[str, Any]:
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def _read_marker(folder: Path) -> dict[str, dict[str, Any]] | None:
    try:
        files: dict[str, dict[str, Any]] = json.loads((folder / MARKER).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return None
    return files


def _file_fault(path: Path, entry: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{path.name} has {size} bytes instead of {entry['bytes']}"
    if file_digest(path) != entry["sha256"]:
        return f"{path.name} has changed since it was written"
    return None
