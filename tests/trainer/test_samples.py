"""What the report asks the finished model."""

import numpy as np
import pytest

from alidade_engine.tokenization import train_tokenizer
from alidade_trainer.data.sequences import SampleBuilder, TokenDataset
from alidade_trainer.samples import first_prompts


@pytest.mark.parametrize("text", ["谁写了《红楼梦》？曹雪芹", "ab谁写了《红楼梦》？", "plain"])
def test_plain_text_is_cut_in_its_middle_and_never_in_a_letter(text: str) -> None:
    tokenizer = train_tokenizer(["plain words, no others"], 300)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    builder = SampleBuilder()
    builder.add(ids, [True] * len(ids))
    dataset = TokenDataset.of(builder.build(), np.arange(1), max_length=64, packing=False)

    pairs = first_prompts(dataset, tokenizer, 1)

    halves = [(tokenizer.decode(pair.prompt), tokenizer.decode(pair.reference)) for pair in pairs]
    assert [first + second for first, second in halves] == [text]
    assert 0.3 < len(halves[0][0]) / len(text) < 0.8
