"""What is left out of a job's data: repetitions, near ones, and what filters say; and what that does to mixing."""

import json
import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from alidade_crds.contract import JobDocument, Stage
from alidade_crds.reasons import FailureReason
from alidade_engine.sources import Locations
from alidade_engine.templates import resolve_template
from alidade_trainer.data import encoding
from alidade_trainer.data.dataset import dataset_names, prepare
from alidade_trainer.data.encoding import Rules
from alidade_trainer.data.languages import language_of
from alidade_trainer.data.likeness import PERMUTATIONS, SHINGLE, band_rows, earlier_alike, signature
from alidade_trainer.data.selection import draw_samples
from alidade_trainer.data.sequences import SampleBuilder
from alidade_trainer.data.tokenising import DataFormat, OpenedSource, tokenise
from alidade_trainer.failures import JobFailure
from tests.trainer.data.test_dataset import questions, texts

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Path]
EXACT, NEAR = {"method": "exact"}, {"method": "near"}
LONG = "The city of {} lies at a wide river, has an old harbour, three bridges and a market that is held every morning."


def test_repetitions_are_left_out_within_and_across_datasets_the_first_is_kept(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", [*questions(4), *questions(2)])
    write("more.json", questions(6))
    mix = [{"uri": "pvc://data/more.json", "weight": 0.5}]
    prepared = prepare(job("train.json", mix=mix, deduplication=EXACT), tokenizer, locations)
    found = texts(prepared.train, tokenizer)
    # Four of the first dataset, and half as many of the two that only the second has.
    assert sorted(text for text in found if "number 4?" not in text and "number 5?" not in text) == sorted(found)[:4]
    assert len(found) == len(set(found)) == 6
    main, more = prepared.report["sources"]
    assert (main["removed"], main["duplicates"], more["removed"], more["duplicates"]) == (2, 2, 4, 0)
    assert "pvc://data/train.json: 2 of 6 records are left out: they repeat an earlier one." in prepared.warnings
    without = prepare(job("train.json", mix=mix), tokenizer, locations)
    assert len(without.train.members) == 9
    assert "pvc://data/train.json: 2 of 6 records repeat another." in without.warnings


def test_a_dataset_that_only_repeats_others_is_said(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(3))
    mix = [{"uri": "pvc://data/train.json", "weight": 1}]
    with pytest.raises(JobFailure, match=r"dataset.mix\[0\].uri: all 3 records repeat earlier ones"):
        prepare(job("train.json", mix=mix, deduplication=EXACT), tokenizer, locations)


def test_near_repetitions_are_left_out_and_near_leaks_are_counted(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    cities = ["Lima", "Oslo"]
    records = [{"input": f"Tell me of {city}.", "output": LONG.format(city)} for city in cities]
    others = [{"input": f"Count to {number}.", "output": " ".join(map(str, range(number)))} for number in (9, 60)]
    write("train.json", [records[0], *others, records[1]])
    write("dev.json", [{"input": "Tell me of Bern.", "output": LONG.format("Bern")}, others[0], *questions(1)])
    data = {"validation": {"uri": "pvc://data/dev.json"}, "maxLength": 512}
    prepared = prepare(job("train.json", deduplication=NEAR, **data), tokenizer, locations)
    assert len(prepared.train.members) == 3
    assert not any("Oslo" in text for text in texts(prepared.train, tokenizer))
    assert "1 of 3 held-out records are also in the training data." in prepared.warnings
    assert "1 of 3 held-out records are much like one of the training data." in prepared.warnings
    strict = prepare(job("train.json", deduplication=NEAR | {"similarity": 1.0}, **data), tokenizer, locations)
    assert len(strict.train.members) == 4


def jaccard(one: str, other: str) -> float:
    sets = [{text[at : at + SHINGLE] for at in range(len(text) - SHINGLE + 1)} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_pairs_are_found_by_their_true_similarity() -> None:
    """Against the Jaccard similarity computed exactly: none far below the threshold, nearly all above it."""
    chance = random.Random(0)
    pairs = []
    for _ in range(150):
        words = ["".join(chance.choices("abcdefghij", k=5)) for _ in range(40)]
        changed = [word if chance.random() > 0.06 else "xxxxx" for word in words]
        pairs.append((" ".join(words), " ".join(changed)))
    signatures = np.array([signature(text) for pair in pairs for text in pair], dtype=np.uint32)
    found = earlier_alike(signatures, 0.8)
    assert not (found[0::2] >= 0).any()
    true = np.array([jaccard(*pair) for pair in pairs])
    marked = found[1::2] >= 0
    assert ((found[1::2] == np.arange(0, 300, 2)) == marked).all()
    assert not marked[true < 0.7].any()
    assert marked[true > 0.9].all()
    assert 20 < (true > 0.9).sum() < 140


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_equal_texts_are_the_first_one_again(numbers: list[int]) -> None:
    kinds = [signature(text) for text in ("one text", "another one", "something else", "")]
    found = earlier_alike(np.array([kinds[number] for number in numbers], dtype=np.uint32), 1.0)
    for place, number in enumerate(numbers):
        first = numbers.index(number)
        assert (found[place] == -1) if place == first else (numbers[found[place]] == number and found[place] < place)


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.75, 0.8, 0.9, 1.0])
def test_bands_reach_below_the_threshold(similarity: float) -> None:
    rows = band_rows(similarity)
    found = 1 - (1 - similarity**rows) ** (PERMUTATIONS // rows)
    assert found > 0.9


def test_case_and_spacing_do_not_tell_texts_apart() -> None:
    assert signature("The  Capital\nof France") == signature("the capital of france")
    assert signature("ab") != signature("cd")


def test_filters_leave_out_by_length_and_language_and_say_what(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    german = {"input": "Wie heißt die Hauptstadt von Frankreich?", "output": "Die Hauptstadt von Frankreich ist Paris."}
    english = {"input": "What is the capital of France?", "output": "The capital of France is the city of Paris."}
    chinese = {"input": "中国的首都是哪里？", "output": "中国的首都是北京。"}
    unsure = {"input": "7", "output": "8"}
    write("train.json", [english, german, chinese, unsure])
    filters = {"languages": ["en", "zh"]}
    prepared = prepare(job("train.json", filters=filters, maxLength=512), tokenizer, locations)
    assert prepared.report["sources"][0]["dropped"] == {
        "a language that filters.languages lacks, de": {"count": 1, "examples": ["train.json, instance 2"]}
    }
    lengths = sorted(prepared.train.samples.lengths.tolist())
    bounds = {"minTokens": lengths[0] + 1, "maxTokens": lengths[-1] - 1}
    prepared = prepare(job("train.json", filters=filters | bounds, maxLength=512), tokenizer, locations)
    assert sorted(prepared.train.samples.lengths.tolist()) == lengths[1:-1]
    said = prepared.report["sources"][0]["dropped"]
    assert said[f"shorter than filters.minTokens, {lengths[0] + 1} tokens"]["examples"] == ["train.json, instance 4"]
    assert said[f"longer than filters.maxTokens, {lengths[-1] - 1} tokens"]["count"] == 1


def test_held_out_data_is_measured_unfiltered(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(12))
    write("dev.json", [{"input": "7", "output": "8"}])
    length = prepare(job("dev.json"), tokenizer, locations).train.longest
    data = {"validation": {"uri": "pvc://data/dev.json"}, "filters": {"minTokens": length + 1}}
    prepared = prepare(job("train.json", **data), tokenizer, locations)
    assert prepared.validation is not None
    assert len(prepared.validation) == 1


def test_a_language_that_cannot_be_told_is_refused_with_those_that_can(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", questions(2))
    with pytest.raises(
        JobFailure, match=r"dataset.filters.languages has xx; languages that can be told are ace, "
    ) as no:
        prepare(job("train.json", filters={"languages": ["en", "xx"]}), tokenizer, locations)
    assert no.value.reason is FailureReason.CONFIG_INVALID


def test_a_text_too_short_has_no_language() -> None:
    assert language_of("42") is None
    assert language_of("0x3f >> 2; ++i") is None
    assert language_of("中国的首都是哪里？") == "zh"


class InThisProcess:
    """In place of a pool, whose processes take a second each to start; batches are read ahead all the same."""

    def __init__(self, count: int, mp_context: object, initializer: Callable[..., None], initargs: Any) -> None:
        initializer(*initargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, work: Callable[[Any], Any], batch: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(batch))
        return done


@pytest.fixture
def no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ProcessPoolExecutor", InThisProcess)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.mark.parametrize("count", [400, 1200])
def test_the_result_is_the_same_whatever_the_number_of_processes(
    write: Write,
    tokenizer: PreTrainedTokenizerFast,
    locations: Locations,
    request: pytest.FixtureRequest,
    count: int,
) -> None:
    if count > 512:  # more than a batch; less has one further process only
        request.getfixturevalue("no_pool")
    write("train.jsonl", "\n".join(map(json.dumps, [*questions(count), {"input": "q", "output": ""}])))
    rules = Rules(Stage.SFT, 64, resolve_template(tokenizer, "auto"), with_signatures=True)
    found = []
    for processes in (1, 2):
        source = OpenedSource(locations, "pvc://data/train.jsonl", DataFormat.AUTO)
        builder = SampleBuilder(locations.scratch / str(processes))
        part = tokenise(source, tokenizer, rules, builder, processes=processes)
        found.append((builder.build(), part, builder.signatures.done()))
    (one, one_part, one_signed), (two, two_part, two_signed) = found
    assert one_part.report == two_part.report
    dropped = one_part.report.dropped["no turn of the assistant with text in it"]
    assert dropped.examples == [f"train.jsonl, line {count + 1}"]
    for name in ("tokens", "learned", "offsets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for name in ("keys", "record_of"):
        np.testing.assert_array_equal(getattr(one_part, name), getattr(two_part, name))
    np.testing.assert_array_equal(one_signed, two_signed)
    assert len(one_signed) == count * PERMUTATIONS


@pytest.mark.parametrize("processes", [1, 2])
def test_what_stands_first_is_named_first_also_where_a_later_line_was_read_meanwhile(
    write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations, no_pool: None, processes: int
) -> None:
    bad = json.dumps({"input": "bad", "output": "x"})
    write("train.jsonl", "\n".join([bad, *map(json.dumps, questions(900)), "{"]))
    template = "{% for m in messages %}{{ m.content if m.content != 'bad' else raise_exception('no') }}{% endfor %}"
    source = OpenedSource(locations, "pvc://data/train.jsonl", DataFormat.AUTO)
    with pytest.raises(JobFailure, match=r"dataset.template cannot render train.jsonl, line 1: no"):
        tokenise(source, tokenizer, Rules(Stage.SFT, 64, template), SampleBuilder(), processes=processes)


@given(st.integers(1, 40), st.integers(0, 200), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_mix_takes_each_sample_once_before_any_again(available: int, wanted: int, seed: int) -> None:
    drawn = draw_samples(available, wanted, seed, 1)
    counts = np.bincount(drawn, minlength=available)
    assert len(drawn) == wanted
    assert counts.max() - counts.min() <= 1
    assert drawn.tolist() == draw_samples(available, wanted + 7, seed, 1)[:wanted].tolist()


def test_datasets_are_called_by_the_last_part_of_their_addresses() -> None:
    uris = ["pvc://data/qa/train.jsonl.gz", "hf://org/name@main", "pvc://other/train.json", "https://h/x.csv#sha256=0"]
    assert dataset_names(uris) == ["train-1", "name", "train-2", "x"]
    assert dataset_names(["pvc://a/folder/"]) == ["folder"]
