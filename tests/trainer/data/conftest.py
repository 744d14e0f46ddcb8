"""A small tokenizer, folders for volumes, and jobs over files that a test writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from alidade_crds.contract import JobDocument
from alidade_engine.sources import Locations
from alidade_engine.tokenization import train_tokenizer

CORPUS = ["What is the capital of France? Paris.", "中国的首都是哪里？北京。", "question number answer"] * 10
OWNER = {"kind": "FineTuneJob", "namespace": "default", "name": "kbqa", "uid": "0"}


@pytest.fixture(scope="session")
def tokenizer_trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, 400)


@pytest.fixture
def tokenizer(tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path) -> PreTrainedTokenizerFast:
    """A tokenizer of the test's own: preparing data sets its chat template."""
    tokenizer_trained.save_pretrained(tmp_path / "tokenizer")
    copy: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    return copy


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    for name in ("volumes/data", "scratch"):
        (tmp_path / name).mkdir(parents=True)
    return Locations(tmp_path / "volumes", tmp_path / "scratch")


Write = Callable[[str, Any], Path]


@pytest.fixture
def write(locations: Locations) -> Write:
    """Writes a file of the claim `data`: text as it is, anything else as JSON."""

    def write_file(name: str, content: Any) -> Path:
        path = locations.volumes / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
        return path

    return write_file


@pytest.fixture
def job() -> Callable[..., JobDocument]:
    """A job over pvc://data/FILE; keywords are fields of its dataset."""

    def make(file: str, *, stage: str = "sft", seed: int = 0, **dataset: Any) -> JobDocument:
        return JobDocument.model_validate(
            {
                "owner": OWNER,
                "stage": stage,
                "model": {"uri": "pvc://models/base"},
                "dataset": {"uri": f"pvc://data/{file}", **dataset},
                "training": {"seed": seed},
                "output": "pvc://models/out",
            }
        )

    return make
