"""A job's data as a whole: what is learned from, what is left out and said, what is held out, mixed and packed."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.sources import Locations
from alidade_engine.templates import render, render_prompt
from alidade_engine.tokenization import train_tokenizer
from alidade_trainer.data.dataset import PreparedData, TokenDataset, prepare, training_texts
from alidade_trainer.data.sequences import NO_LOSS
from alidade_trainer.failures import JobFailure

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Path]

SHARED = Path("/work/shared/data")


def questions(count: int) -> list[dict[str, str]]:
    return [{"input": f"question number {number}?", "output": f"answer {number}"} for number in range(count)]


def texts(data: TokenDataset | None, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each sample says, in order of the text."""
    assert data is not None
    samples = data.samples
    return sorted(
        tokenizer.decode(samples.tokens[samples.offsets[member] : samples.offsets[member + 1]])
        for member in data.members
    )


def items(data: TokenDataset) -> list[dict[str, list[int]]]:
    return [{name: values.tolist() for name, values in data[row].items()} for row in range(len(data))]


def test_a_demonstration_is_learned_as_its_template_says_and_asked_as_it_begins(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", {"type": "text2text", "instances": [{"input": "中国的首都是哪里？", "output": "北京"}]})
    prepared = prepare(job("train.json", template="alpaca"), tokenizer, locations)
    messages = [{"role": "user", "content": "中国的首都是哪里？"}, {"role": "assistant", "content": "北京"}]
    expected = render(tokenizer, messages, "alpaca")
    (item,) = items(prepared.train)
    assert item["input_ids"] == expected.input_ids
    assert item["labels"] == [
        token if answer else NO_LOSS for token, answer in zip(expected.input_ids, expected.answer_mask, strict=True)
    ]
    assert item["labels"][-1] == tokenizer.eos_token_id
    # The template goes with the tokenizer: whoever loads the model asks in the way that was trained.
    tokenizer.save_pretrained(locations.scratch / "model")
    loaded = PreTrainedTokenizerFast.from_pretrained(locations.scratch / "model")
    asked = render_prompt(loaded, messages[:1])
    assert item["input_ids"][: len(asked)] == asked
    assert loaded.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False) == asked
    assert prepared.template == tokenizer.chat_template


def test_packing_keeps_every_sample_once_and_counts_what_is_learned(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", "\n".join(map(json.dumps, questions(100))))
    packed = prepare(job("train.jsonl", maxLength=128), tokenizer, locations)
    apart = prepare(job("train.jsonl", maxLength=128, packing=False), tokenizer, locations)
    assert texts(packed.train, tokenizer) == texts(apart.train, tokenizer)
    assert len(texts(apart.train, tokenizer)) == len(set(texts(apart.train, tokenizer))) == len(apart.train) == 100
    report = packed.report["train"]
    assert report["sequences"] == len(packed.train) < 40
    assert report["tokens"] == sum(len(item["input_ids"]) for item in items(packed.train))
    assert report["packing_efficiency"] == pytest.approx(report["tokens"] / (128 * len(packed.train)))
    assert report["answer_tokens"] == apart.report["train"]["answer_tokens"] > 0
    assert all(len(item["input_ids"]) <= 128 for item in items(packed.train))


def test_the_same_job_gives_the_same_sequences_and_another_seed_another_order(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(60))
    once, again, other = (
        prepare(job("train.json", seed=seed, validation={"fraction": 0.1}), tokenizer, locations) for seed in (1, 1, 2)
    )
    assert items(once.train) == items(again.train)
    assert once.report == again.report
    assert items(once.train) != items(other.train)
    assert texts(once.validation, tokenizer) != texts(other.validation, tokenizer)


def test_records_that_are_too_long_are_left_out_whole_and_counted_with_their_places(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    long = [{"input": "word " * 200, "output": "x"}] * 7
    write("train.jsonl", "\n".join(map(json.dumps, [*questions(3), *long])))
    prepared = prepare(job("train.jsonl", maxLength=128), tokenizer, locations)
    assert len(texts(prepared.train, tokenizer)) == 3
    (source,) = prepared.report["sources"]
    assert (source["records"], source["kept"]) == (10, 3)
    assert source["dropped"] == {
        "longer than maxLength, 128 tokens": {
            "count": 7,
            "examples": [f"train.jsonl, line {line}" for line in range(4, 9)],
        }
    }
    assert prepared.warnings == [
        "pvc://data/train.jsonl: 7 of 10 records are left out: longer than maxLength, 128 tokens (train.jsonl, line 4, "
        "train.jsonl, line 5, train.jsonl, line 6, train.jsonl, line 7, train.jsonl, line 8, …)."
    ]


def test_a_record_as_long_as_the_limit_is_kept(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(1))
    length = prepare(job("train.json"), tokenizer, locations).train.longest
    assert len(prepare(job("train.json", maxLength=length), tokenizer, locations).train) == 1
    with pytest.raises(JobFailure) as caught:
        prepare(job("train.json", maxLength=length - 1), tokenizer, locations)
    assert caught.value.reason is FailureReason.DATA_TOO_LONG
    assert caught.value.message == (
        "dataset.uri: all 1 records are left out, 1 of them because they are longer than maxLength, "
        f"{length - 1} tokens (train.json, instance 1). Raise dataset.maxLength, or shorten them."
    )


def test_data_without_answers_is_refused(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", [{"input": "q", "output": ""}, {"input": "q", "output": " \n"}])
    with pytest.raises(JobFailure) as caught:
        prepare(job("train.json"), tokenizer, locations)
    assert caught.value.reason is FailureReason.DATA_EMPTY
    assert caught.value.message == (
        "dataset.uri: none of the 2 records can be learned from; 2 have no turn of the assistant with text in it "
        "(train.json, instance 1, train.json, instance 2)."
    )


@pytest.mark.parametrize(
    ("stage", "record", "message"),
    [
        (
            "sft",
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            "holds preferences; sft learns from prompts with answers",
        ),
        ("pretrain", {"input": "q", "output": "a"}, "holds prompts with answers; pretrain learns from plain text"),
        (
            "pretrain",
            {"prompt": "q", "chosen": "a", "rejected": "b"},
            "holds preferences; pretrain learns from plain text",
        ),
    ],
)
def test_records_that_the_stage_cannot_learn_from_are_refused(
    job: Job,
    write: Write,
    tokenizer: PreTrainedTokenizerFast,
    locations: Locations,
    stage: str,
    record: dict[str, str],
    message: str,
) -> None:
    write("train.json", [record])
    with pytest.raises(JobFailure, match=f"dataset.uri: train.json, instance 1 {message}") as caught:
        prepare(job("train.json", stage=stage), tokenizer, locations)
    assert caught.value.reason is FailureReason.DATA_MALFORMED


def test_plain_text_alone_is_no_data_for_sft(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", [{"text": "t"}])
    with pytest.raises(JobFailure, match=r"instance 1 holds plain text; sft learns from .*; use method: pretrain"):
        prepare(job("train.json"), tokenizer, locations)


def test_pretraining_reads_every_token_of_every_document_in_blocks(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    documents = ["word " * 100, "short", "   "]
    write("corpus.json", {"type": "text_only", "instances": [{"text": text} for text in documents]})
    prepared = prepare(job("corpus.json", stage="pretrain", maxLength=64), tokenizer, locations)
    long = tokenizer(documents[0])["input_ids"] + [tokenizer.eos_token_id]
    short = tokenizer(documents[1])["input_ids"] + [tokenizer.eos_token_id]
    assert prepared.report["train"]["tokens"] == len(long) + len(short)
    samples = prepared.train.samples
    blocks = [samples.tokens[samples.offsets[row] : samples.offsets[row + 1]].tolist() for row in range(len(samples))]
    assert [token for block in blocks for token in block] == long + short
    assert prepared.report["train"]["answer_tokens"] == len(long) + len(short) - len(blocks)
    assert prepared.report["sources"][0]["dropped"] == {
        "no text": {"count": 1, "examples": ["corpus.json, instance 3"]}
    }
    assert prepared.template is None


def test_held_out_records_are_a_share_that_no_repetition_leaks_into(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    repeated = questions(50) * 3
    write("train.json", repeated)
    prepared = prepare(job("train.json", validation={"fraction": 0.2}), tokenizer, locations)
    held_out, trained = texts(prepared.validation, tokenizer), texts(prepared.train, tokenizer)
    assert not set(held_out) & set(trained)
    assert len(held_out) == 30
    assert len(held_out) + len(trained) == 150
    assert prepared.report["sources"][0]["duplicates"] == 100
    assert "100 of 150 records repeat another" in prepared.warnings[0]
    # The order of the file does not matter, so a shuffled copy holds out the same.
    write("train.json", repeated[::-1])
    again = prepare(job("train.json", validation={"fraction": 0.2}), tokenizer, locations)
    assert texts(again.validation, tokenizer) == held_out


def test_a_share_holds_out_at_least_one_record_and_never_all(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(2))
    for fraction in (0.001, 0.999):
        prepared = prepare(job("train.json", validation={"fraction": fraction}), tokenizer, locations)
        assert (len(prepared.train.members), len(texts(prepared.validation, tokenizer))) == (1, 1)
    write("train.json", questions(1) * 5)
    with pytest.raises(JobFailure, match=r"needs two different records to hold one out; the dataset has 1"):
        prepare(job("train.json", validation={"fraction": 0.5}), tokenizer, locations)


def test_a_share_is_held_out_of_every_dataset_of_as_much_as_is_drawn(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    counts = {"question": 40, "more": 200, "few": 4, "one": 1, "none": 9}
    for name, count in counts.items():
        write(f"{name}.json", [{"input": f"{name} {number}", "output": "a"} for number in range(count)])
    weights = {"more": 0.5, "few": 2, "one": 0.1, "none": 0}
    mix = [{"uri": f"pvc://data/{name}.json", "weight": weight} for name, weight in weights.items()]
    for packing in (False, True):
        described = job("question.json", mix=mix, validation={"fraction": 0.25}, packing=packing)
        prepared = prepare(described, tokenizer, locations)
        held_out = prepared.validation
        assert held_out is not None
        assert held_out.datasets is not None
        found = Counter(list(counts)[number] for number in held_out.datasets[held_out.members])
        # A quarter of 40; of 15, which are drawn of 200 since 30 are left; of all 4; and nothing of a single record.
        assert found == {"question": 10, "more": 4, "few": 1}
        said = texts(held_out, tokenizer)
        assert Counter(name for name in counts for text in said if f"{name} " in text) == found
        assert not set(texts(prepared.train, tokenizer)) & set(said)


def test_held_out_data_of_its_own_is_checked_against_the_training_data(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(10))
    write("dev.json", questions(12)[8:])
    prepared = prepare(job("train.json", validation={"uri": "pvc://data/dev.json"}), tokenizer, locations)
    assert len(texts(prepared.validation, tokenizer)) == 4
    assert len(prepared.train.members) == 10
    assert prepared.warnings == ["2 of 4 held-out records are also in the training data."]
    with pytest.raises(JobFailure, match=r"dataset.validation.uri is pvc://data/no.json, which does not exist"):
        prepare(job("train.json", validation={"uri": "pvc://data/no.json"}), tokenizer, locations)


@pytest.mark.parametrize(("weight", "drawn"), [(0, 0), (0.5, 10), (2.0, 40)])
def test_mixed_data_is_drawn_by_weight(
    job: Job,
    write: Write,
    tokenizer: PreTrainedTokenizerFast,
    locations: Locations,
    weight: float,
    drawn: int,
) -> None:
    write("train.json", questions(20))
    write("corpus.json", [{"text": f"text {number}"} for number in range(16)])
    mix = [{"uri": "pvc://data/corpus.json", "weight": weight}]
    prepared = prepare(job("train.json", mix=mix), tokenizer, locations)
    found = [text for text in texts(prepared.train, tokenizer) if "question" not in text]
    assert len(found) == drawn
    assert len(prepared.train.members) == 20 + drawn
    counts = [found.count(text) for text in set(found)]
    assert max(counts, default=0) - min(counts, default=0) <= 1  # none is taken again before all were taken
    learned = prepared.train.samples.learned_counts(np.arange(20, 36))
    assert learned == int(prepared.train.samples.lengths[20:].sum()) - 16  # text is learned whole, but for first tokens


def test_a_template_that_fails_names_the_record(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", "\n".join(map(json.dumps, [*questions(600), {"input": "forbidden", "output": "x"}])))
    template = (
        "{% for m in messages %}{% if m['content'] == 'forbidden' %}{{ raise_exception('not this word') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(JobFailure) as caught:
        prepare(job("train.jsonl", template=template), tokenizer, locations)
    assert caught.value.reason is FailureReason.TEMPLATE_FAILED
    assert caught.value.message == "dataset.template cannot render train.jsonl, line 601: not this word."


def test_what_is_wrong_in_mixed_data_names_its_field(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(2))
    write("corpus.jsonl", '{"text": "x"}\n{"text"')
    mix = [{"uri": "pvc://data/corpus.jsonl", "weight": 1}]
    with pytest.raises(JobFailure) as caught:
        prepare(job("train.json", mix=mix), tokenizer, locations)
    assert caught.value.message == (
        "dataset.mix[0].uri: corpus.jsonl, line 2, column 8: not JSON: Expecting ':' delimiter."
    )


def test_long_text_mixed_into_demonstrations_is_learned_in_blocks(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(3))
    write("corpus.json", [{"text": "word " * 100}])
    mix = [{"uri": "pvc://data/corpus.json", "weight": 1}]
    prepared = prepare(job("train.json", mix=mix, maxLength=128), tokenizer, locations)
    length = len(tokenizer("word " * 100)["input_ids"]) + 1
    samples = prepared.train.samples
    assert samples.lengths[3:].tolist() == [128] * (length // 128) + [length % 128]
    assert prepared.report["sources"][1]["dropped"] == {}


def test_mixed_data_must_hold_something_unless_nothing_is_drawn_from_it(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(2))
    write("empty.json", [{"text": " "}])
    mix = {"uri": "pvc://data/empty.json", "weight": 0}
    assert len(prepare(job("train.json", mix=[mix]), tokenizer, locations).train.members) == 2
    with pytest.raises(
        JobFailure, match=r"dataset.mix\[0\].uri: none of the 1 records can be learned from; 1 have no text"
    ):
        prepare(job("train.json", mix=[mix | {"weight": 1}]), tokenizer, locations)


def test_a_context_shorter_than_max_length_lowers_it_and_says_so(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(50))
    prepared = prepare(job("train.json", maxLength=1024), tokenizer, locations, context_length=64)
    assert prepared.train.longest <= 64
    assert prepared.warnings == ["dataset.maxLength is 1024, the model's context 64 tokens; 64 is used."]


def test_the_digest_is_of_the_files(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    one = write("folder/a.json", questions(2))
    other = write("folder/b.json", questions(3))
    write("folder/test.json", questions(1))
    prepared = prepare(job("folder"), tokenizer, locations)
    (source,) = prepared.report["sources"]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, other)}
    assert source["files"] == hashes
    lines = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    assert source["digest"] == "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert source["held_out_files"] == ["test.json"]
    assert any("test.json left out, held-out data by name" in warning for warning in prepared.warnings)


def test_stored_data_is_read_back_as_it_was(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(40))
    for validation in ({"fraction": 0.1}, None):
        prepared = prepare(job("train.json", validation=validation), tokenizer, locations)
        folder = locations.scratch / f"data-{validation is None}"
        prepared.save(folder)
        loaded = PreparedData.load(folder)
        assert items(loaded.train) == items(prepared.train)
        assert (loaded.validation is None) == (validation is None)
        assert (loaded.report, loaded.template, loaded.packed) == (prepared.report, prepared.template, prepared.packed)


def test_a_tokenizer_is_trained_on_all_that_the_records_say(job: Job, write: Write, locations: Locations) -> None:
    write("corpus.json", [{"text": "one"}, {"text": "two"}])
    assert list(training_texts(job("corpus.json", stage="pretrain"), locations)) == ["one", "two"]
    write("train.json", [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}])
    assert list(training_texts(job("train.json"), locations)) == ["q", "a"]


def test_fifteen_thousand_chinese_questions_take_seconds(job: Job, write: Write, locations: Locations) -> None:
    source = SHARED / "nlpcc2016_kbqa" / "train.txt"
    if not source.is_file():
        pytest.skip(f"{source} is not here")
    text = source.read_text("utf-8")
    asked = re.findall(r"<question id=\d+>\s*(.*)", text)
    answers = re.findall(r"<answer id=\d+>\s*(.*)", text)
    records = [{"input": ask.strip(), "output": answer.strip()} for ask, answer in zip(asked, answers, strict=True)]
    write("train.jsonl", "\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    described = job("train.jsonl", maxLength=512, validation={"fraction": 0.05})
    tokenizer = train_tokenizer(training_texts(described, locations), 4000)
    start = time.process_time()
    prepared = prepare(described, tokenizer, locations)
    spent = time.process_time() - start
    assert prepared.report["sources"][0]["kept"] == len(records) == 14_609
    assert prepared.report["train"]["packing_efficiency"] > 0.97
    # Measured: 2.2 s of processor time; the bound leaves room for a slower machine, not for another order of growth.
    assert spent < 20


def test_alpacas_seed_tasks_are_read_as_they_come(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    source = SHARED / "alpaca_seed_tasks.jsonl"
    if not source.is_file():
        pytest.skip(f"{source} is not here")
    write("train.jsonl", source.read_text("utf-8"))
    prepared = prepare(job("train.jsonl", template="alpaca", maxLength=4096), tokenizer, locations)
    (report,) = prepared.report["sources"]
    instances = sum(len(json.loads(line)["instances"]) for line in source.read_text("utf-8").splitlines())
    assert report["records"] == instances
    assert report["kept"] + sum(item["count"] for item in report["dropped"].values()) == instances
    assert any("paired with an input" in text for text in texts(prepared.train, tokenizer))
