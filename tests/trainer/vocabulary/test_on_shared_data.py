"""4,000 pieces for the questions of NLPCC-2016 KBQA, where the shared data is there."""

import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import VocabularySource
from alidade_engine.sources import Locations
from alidade_trainer.vocabulary.extension import backend_of, extend_tokenizer
from alidade_trainer.vocabulary.measuring import measure
from examples.nlpcc.nlpcc import read_entries

SHARED = Path(os.environ.get("ALIDADE_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
CORPUS = SHARED / "nlpcc2016_kbqa"


def questions(name: str) -> list[str]:
    with (CORPUS / name).open(encoding="utf-8") as lines:
        return [entry.question for entry in read_entries(lines)]


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{CORPUS} is not on this machine")
def test_four_thousand_pieces_take_most_tokens_from_questions_never_seen(
    gpt2_like: PreTrainedTokenizerBase, locations: Locations
) -> None:
    learned, unseen = questions("train.txt")[:5000], questions("test.txt")[:2000]

    longer, report = extend_tokenizer(
        gpt2_like, VocabularySource(train_on_dataset=True, size=4000), lambda: learned, locations
    )

    assert report["entries"] == len(gpt2_like) + 4000
    assert report["exact_after"] == report["texts"] == len(learned)
    found = measure(backend_of(gpt2_like), backend_of(longer), unseen)
    assert found.exact_after == len(unseen)
    before, after = found.tokens_before / found.characters, found.tokens_after / found.characters
    assert before > 2.5  # nearly every character in its three bytes
    assert after < 0.8  # fewer tokens than characters
