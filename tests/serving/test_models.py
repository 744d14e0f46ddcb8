"""What can be served: a folder, a file; what cannot, and the sentence that says so."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, GGUFWriter

from alidade_engine.failures import JobFailure
from alidade_engine.gguf.writing import write_gguf
from alidade_serving.models import prepare_model
from alidade_serving.settings import Settings, read_settings
from tests.serving.running import Server

PROMPT = "What is the capital of France?"


def answers(server: Server) -> list[Any]:
    return [server.generate(PROMPT, max_new_tokens=40)[1], server.post("/tokenize", {"inputs": "中国 a"})[1]]


def test_a_file_is_served_as_its_folder_is_and_repetitions_are_proposed(
    start: Callable[..., Server], server: Server, model_folder: Path, tmp_path: Path
) -> None:
    """Prompt lookup changes nothing but how many tokens come at once."""
    write_gguf(model_folder, tmp_path / "tiny.gguf", "f16")
    from_file = start(model=tmp_path / "tiny.gguf", prompt_lookup_tokens=6)
    assert answers(from_file) == answers(server)
    chat = {"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 8, "model": "tiny"}
    said = [one.post("/v1/chat/completions", chat)[1]["choices"] for one in (from_file, server)]
    assert said[0] == said[1]
    repeated = {"model": "tiny", "prompt": PROMPT * 6, "temperature": 0, "max_tokens": 100}
    said = [one.post("/v1/completions", repeated)[1]["choices"] for one in (from_file, server)]
    assert said[0] == said[1]
    assert from_file.metric("modelserve_draft_tokens_total") > 0


def test_a_draft_model_proposes_and_the_answer_stays_the_same(
    start: Callable[..., Server], server: Server, model_folder: Path
) -> None:
    """The draft is the model itself, so nearly all that it proposes is right."""
    drafted = start(draft_model=model_folder, draft_tokens=4)
    assert answers(drafted) == answers(server)
    proposed = drafted.metric("modelserve_draft_tokens_total")
    assert drafted.metric("modelserve_draft_tokens_accepted_total") >= 0.8 * proposed > 0


def settings(model: Path, cache: Path, *more: str) -> Settings:
    return read_settings([f"--model={model}", f"--cache={cache}", *more], {})


def test_a_folder_is_converted_once_and_again_when_it_changes(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    first = prepare_model(settings(folder, tmp_path / "cache")).path
    written = first.stat().st_mtime_ns
    assert prepare_model(settings(folder, tmp_path / "cache")).path == first
    assert first.stat().st_mtime_ns == written
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert prepare_model(settings(folder, tmp_path / "cache")).path != first
    assert prepare_model(settings(folder, tmp_path / "cache", "--quantization=q8_0")).path.name.count("q8_0") == 1


def test_more_tokens_than_the_model_was_made_for_are_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match=r"--max-total-tokens is 32768 .*; the model was made for 16384\."):
        prepare_model(settings(model_folder, tmp_path, "--max-total-tokens=32768"))


def test_limits_left_to_the_model_are_within_its_context(model_folder: Path, tmp_path: Path) -> None:
    left = settings(model_folder, tmp_path)
    assert (left.within(512).max_input_tokens, left.within(512).max_total_tokens) == (256, 512)
    assert (left.within(16384).max_input_tokens, left.within(16384).max_total_tokens) == (1024, 2048)
    given = settings(model_folder, tmp_path, "--max-total-tokens=300", "--max-input-tokens=100").within(16384)
    assert (given.max_input_tokens, given.max_total_tokens) == (100, 300)


def test_a_prompt_limit_that_leaves_no_room_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match=r"--max-input-tokens is 2048 .*together may have 2048\."):
        prepare_model(settings(model_folder, tmp_path, "--max-input-tokens=2048"))


def test_a_file_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert GGUFReader(tmp_path / "other.gguf").get_field("general.architecture") is not None
    with pytest.raises(JobFailure, match="does not hold its Hugging Face tokenizer"):
        prepare_model(settings(tmp_path / "other.gguf", tmp_path))


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGML" + bytes(100))
    with pytest.raises(JobFailure, match="is not a GGUF file"):
        prepare_model(settings(tmp_path / "broken.gguf", tmp_path))


def test_the_process_ends_with_one_sentence_when_there_is_no_model(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "alidade_serving.main", "--model", str(tmp_path / "none"), "--port=0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr == f"alidade-serve: {tmp_path / 'none'} does not exist; check model.uri.\n"
