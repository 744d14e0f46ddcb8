"""Checkpoints are complete or ignored."""

import errno
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from alidade_trainer.checkpoints import MARKER, CheckpointStore, TrainingState
from alidade_trainer.peers import Peers
from alidade_trainer.zero import tensors_only

ALONE = Peers(rank=0, count=1, local_rank=0, local_count=1, device=torch.device("cpu"))


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, log: list[str]) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", ALONE, keep=2, log=log.append)


def state(step: int) -> TrainingState:
    return TrainingState(step, "f" * 64, "sha256:0", {"stage": "sft"}, processes=1, micro_batch_size=4)


def write_engine(folder: Path) -> None:
    (folder / "engine").mkdir()
    (folder / "engine" / "weights.pt").write_bytes(b"weights" * 100)


def test_the_newest_checkpoint_comes_back_as_it_was_saved(store: CheckpointStore) -> None:
    store.save(state(9), write_engine)
    store.save(state(10), write_engine)

    newest = store.newest()

    assert newest is not None
    assert newest.state == state(10)  # 10 is newer than 9, though not in the alphabet
    assert (newest.folder / "engine" / "weights.pt").read_bytes() == b"weights" * 100


def test_only_the_newest_are_kept(store: CheckpointStore, tmp_path: Path) -> None:
    for step in (2, 4, 6):
        store.save(state(step), write_engine)

    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-4", "step-6"]


def test_without_checkpoints_training_starts_at_the_beginning(store: CheckpointStore) -> None:
    assert store.newest() is None


@pytest.mark.parametrize("damage", ["cut", "changed", "missing file", "no marker", "marker cut"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    store: CheckpointStore, log: list[str], tmp_path: Path, damage: str
) -> None:
    store.save(state(2), write_engine)
    store.save(state(4), write_engine)
    folder = tmp_path / "checkpoints" / "step-4"
    weights, marker = folder / "engine" / "weights.pt", folder / MARKER
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "changed":
            weights.write_bytes(b"WEIGHTS" + weights.read_bytes()[7:])
        case "missing file":
            weights.unlink()
        case "no marker":
            marker.unlink()
        case "marker cut":
            marker.write_bytes(marker.read_bytes()[:-5])

    newest = store.newest()

    assert newest is not None
    assert newest.state.step == 2
    assert len(log) == 1
    assert log[0].startswith("Checkpoint step-4 is passed over: ")


def test_a_save_that_was_killed_leaves_a_folder_that_is_deleted(
    store: CheckpointStore, log: list[str], tmp_path: Path
) -> None:
    store.save(state(2), write_engine)
    partial = tmp_path / "checkpoints" / ".partial-step-4"
    write_engine_into(partial)

    newest = store.newest()

    assert newest is not None
    assert newest.state.step == 2
    assert not partial.exists()
    assert log == ["Checkpoint step-4 was never completed; it is deleted."]


def write_engine_into(folder: Path) -> None:
    folder.mkdir()
    write_engine(folder)


def test_a_save_that_fails_leaves_nothing_and_harms_nothing(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(state(2), write_engine)

    def run_out_of_disk(folder: Path) -> None:
        write_engine(folder)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    with pytest.raises(OSError, match="No space left"):
        store.save(state(4), run_out_of_disk)

    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


def test_the_marker_names_every_file_with_size_and_digest(store: CheckpointStore, tmp_path: Path) -> None:
    store.save(state(2), write_engine)

    folder = tmp_path / "checkpoints" / "step-2"
    files = json.loads((folder / MARKER).read_text())["files"]

    assert set(files) == {"state.json", "engine/weights.pt"}
    assert files["engine/weights.pt"]["bytes"] == 700


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def test_what_a_checkpoints_pickle_would_run_is_not_run(tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": Evil(mark)}, file)
    with tensors_only(), pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        TorchCheckpointEngine().load(str(file))
    assert not mark.exists()
    TorchCheckpointEngine().load(str(file))
    assert mark.exists(), "DeepSpeed has become careful itself: tensors_only can go"
