"""Records left out by their perplexity: what it is, and which of them bounds and quantiles keep."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_crds.text_dataset import Perplexity
from alidade_engine.sources import Locations
from alidade_trainer.data.dataset import PreparedData, prepare, tokenise_data
from alidade_trainer.data.perplexity import out_of_bounds
from alidade_trainer.data.report import SourceReport
from alidade_trainer.data.sequences import SampleBuilder
from alidade_trainer.data.tokenising import TokenisedSource
from alidade_trainer.failures import JobFailure
from alidade_trainer.perplexity_scoring import batch_losses
from tests.trainer.data.test_dataset import questions, texts

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Path]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=400, initializer_range=0.5, **shape))
    return cast(LlamaForCausalLM, model.eval())


def naive_perplexity(model: LlamaForCausalLM, samples: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """exp of the mean loss by transformers' own computation, sample by sample; labels of -100 are not learned."""
    total, count = 0.0, 0
    for ids, labels in samples:
        learned = int((labels[1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=ids[None], labels=labels[None]).loss) * learned
        count += learned
    return math.exp(total / count)


def filtered(job: JobDocument, tokenizer: Any, locations: Locations, model: LlamaForCausalLM) -> PreparedData:
    data = tokenise_data(job, tokenizer, locations)
    return data.prepared(batch_losses(model, data.samples, data.candidates))


def test_perplexity_is_that_of_the_learned_tokens_of_a_record(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations, model: LlamaForCausalLM
) -> None:
    """Of answers after their prompts, and of all blocks of a long text, against transformers' own loss."""
    write("train.json", questions(6))
    write("web.jsonl", "".join(f'{{"text": "{"number " * count}"}}\n' for count in (3, 200)))
    mix = [{"uri": "pvc://data/web.jsonl", "weight": 1.0}]
    plain = prepare(job("train.json", mix=mix, maxLength=64, packing=False), tokenizer, locations)
    parts: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
    for sample in range(len(plain.train.samples)):
        one = slice(*plain.train.samples.offsets[sample : sample + 2])
        ids = torch.from_numpy(plain.train.samples.tokens[one].astype(np.int64))
        learned = torch.from_numpy(plain.train.samples.learned[one].copy())
        parts.append([(ids, torch.where(learned, ids, -100))])
    assert len(parts) > 8, "the second text has several blocks"
    records = [*parts[:7], [block for part in parts[7:] for block in part]]
    expected = [naive_perplexity(model, record) for record in records]
    wanted = job("train.json", mix=mix, maxLength=64, filters={"perplexity": {"minimum": 1}})
    told = filtered(wanted, tokenizer, locations, model).report["sources"]
    for source, values in zip(told, (expected[:6], expected[6:]), strict=True):
        quantiles = {name: float(np.quantile(values, float(name))) for name in source["perplexity"]}
        assert source["perplexity"] == pytest.approx(quantiles, rel=1e-4)  # sums of float32 in another order


def test_bounds_keep_what_is_within_them_and_name_what_is_not(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations, model: LlamaForCausalLM
) -> None:
    write("train.json", [{"input": "q", "output": ""}, *questions(9), questions(1)[0]])
    write("dev.json", questions(2))
    data = {"deduplication": {"method": "exact"}, "validation": {"uri": "pvc://data/dev.json"}}
    tokenised = tokenise_data(job("train.json", **data), tokenizer, locations)
    losses = np.arange(1, 10, dtype=np.float32) * 3
    counts = tokenised.samples.learned_lengths[tokenised.candidates]
    perplexities = np.exp(losses / counts)
    low, high = sorted(perplexities)[1:9:6]
    wanted = Perplexity(minimum=float(low) * 0.999, maximum=float(high) * 1.001)
    chosen = job("train.json", filters={"perplexity": wanted.to_dict()}, **data)
    prepared = tokenise_data(chosen, tokenizer, locations).prepared(losses)
    source = prepared.report["sources"][0]
    assert (source["records"], source["kept"], source["removed"], len(prepared.train.members)) == (11, 8, 1, 7)
    [below] = [found for reason, found in source["dropped"].items() if "below filters.perplexity.minimum" in reason]
    worst = int(perplexities.argmin())
    assert below == {"count": 1, "examples": [f"train.json, instance {worst + 2}: {perplexities[worst]:.4g}"]}
    assert any("1 of 11 records are left out: a perplexity above" in warning for warning in prepared.warnings)
    assert prepared.validation is not None
    assert len(prepared.validation.members) == 2, "what is measured stays what it is"


def test_nothing_within_the_bounds_is_said_with_the_places(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations, model: LlamaForCausalLM
) -> None:
    write("train.json", questions(3))
    wanted = job("train.json", filters={"perplexity": {"maximum": 1}})
    with pytest.raises(
        JobFailure, match=r"3 have a perplexity above filters.perplexity.maximum, 1 \(train.json, "
    ) as no:
        filtered(wanted, tokenizer, locations, model)
    assert no.value.reason is FailureReason.DATA_EMPTY
    broken = tokenise_data(wanted, tokenizer, locations)
    with pytest.raises(JobFailure, match="3 have a perplexity that is no number"):
        broken.prepared(np.full(3, np.nan, dtype=np.float32))


def test_a_preview_says_that_it_scores_nothing(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(3))
    prepared = prepare(job("train.json", filters={"perplexity": {"maximum": 1}}), tokenizer, locations)
    assert len(texts(prepared.train, tokenizer)) == 3
    assert any("filters.perplexity is not counted here" in warning for warning in prepared.warnings)


class Listed:
    """In place of an opened source: examples stand where their numbers say."""

    def places(self, numbers: list[int]) -> list[str]:
        return [f"line {number}" for number in numbers]


@given(
    st.lists(st.tuples(st.floats(0.001, 20), st.booleans(), st.integers(1, 3)), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_quantiles_are_of_the_records_that_repeat_none(
    records: list[tuple[float, bool, int]], quantile: float, is_upper: bool
) -> None:
    builder = SampleBuilder()
    record_of, losses = [], []
    for number, (mean, repeats, blocks) in enumerate(records):
        for _ in range(blocks):
            builder.add([1, 2, 3], [True] * 3)
            record_of.append(number)
            losses += [] if repeats else [2 * mean]  # of two learned tokens
    count = len(records)
    report = SourceReport("pvc://data/a", "text", {}, "", records=count, kept=count)
    source = TokenisedSource(
        cast(Any, Listed()),
        range(len(builder)),
        np.array(record_of, dtype=np.int64),
        np.arange(count, dtype=np.uint64),
        np.arange(count, dtype=np.int64),
        report,
    )
    repeats = np.array([repeats for _, repeats, _ in records])
    bound = {"maximum_quantile" if is_upper else "minimum_quantile": quantile}
    outside = out_of_bounds(source, repeats, builder.build(), np.array(losses, dtype=np.float32), Perplexity(**bound))
    assert not outside[repeats].any()
    assert report.kept == count - outside.sum()
    single = [mean for mean, repeats, _ in records if not repeats]
    if len(set(single)) == len(single) > 1 and np.diff(sorted(single)).min() > 1e-4:
        below = math.floor(quantile * (len(single) - 1) + 1e-9) + 1  # values at or below the quantile
        exactly = math.isclose(quantile * (len(single) - 1), round(quantile * (len(single) - 1)), abs_tol=1e-6)
        left = below if is_upper else len(single) - below + exactly
        assert exactly or len(single) - outside.sum() == left
        lost = [mean for (mean, _, _), out in zip(records, outside, strict=True) if out]
        stay = [mean for (mean, repeats, _), out in zip(records, outside, strict=True) if not out and not repeats]
        assert not lost or (min(lost) > max(stay) if is_upper else max(lost) < min(stay))
