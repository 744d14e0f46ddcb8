"""What is left out of a reward model's preferences and of an alignment's prompts: repetitions, and what filters say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from alidade_crds.alignmentrun import AlignStep, Generation
from alidade_crds.contract import JobAlignment, JobDocument, Stage
from alidade_engine.sources import Locations
from alidade_trainer.align.prompts import PromptData, prepare_prompts
from alidade_trainer.failures import JobFailure
from alidade_trainer.reward.comparisons import prepare_comparisons
from tests.trainer.data.test_cleaning import EXACT, LONG, NEAR

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Path]
ASKED = "Which city has a harbour, three bridges and a market that is held every morning, and lies at a wide river?"


def preference(prompt: str, chosen: str, rejected: str = "No.") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def told(report: dict[str, Any], number: int = 0) -> tuple[int, int, int]:
    source = report["sources"][number]
    return source["records"], source["kept"], source["removed"]


def test_equal_preferences_are_one_and_others_of_the_same_prompt_stay(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    one, other, turned = preference("q", "a"), preference("q", "b"), preference("q", "No.", "a")
    write("train.json", [one, other, one, turned])
    write("more.json", [other, preference("q", "c"), {"prompt": "r", "chosen": "only"}][:2])
    mix = [{"uri": "pvc://data/more.json", "weight": 0.5}]
    wanted = job("train.json", stage="reward", mix=mix, deduplication=EXACT)
    data = prepare_comparisons(wanted, tokenizer, locations)
    assert told(data.report) == (4, 4, 1)
    assert told(data.report, 1) == (2, 2, 1)
    assert len(data.comparisons) == 3 + 2  # half as many as of the first, of the one that is left
    assert "pvc://data/train.json: 1 of 4 records are left out: they repeat an earlier one." in data.warnings
    whole = prepare_comparisons(job("train.json", stage="reward"), tokenizer, locations)
    assert (told(whole.report), len(whole.comparisons)) == ((4, 4, 0), 4)


def test_preferences_much_alike_are_one_and_near_leaks_are_counted(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", [preference(ASKED, LONG.format(city)) for city in ("Lima", "Oslo")] + [preference("q", "a")])
    write("dev.json", [preference(ASKED, LONG.format("Bern")), preference("r", "b")])
    validation = {"uri": "pvc://data/dev.json"}
    wanted = job("train.json", stage="reward", deduplication=NEAR, validation=validation, maxLength=512)
    data = prepare_comparisons(wanted, tokenizer, locations)
    assert (told(data.report), len(data.comparisons), len(data.held_out or [])) == ((3, 3, 1), 2, 2)
    assert "1 of 2 held-out records are much like one of the training data." in data.warnings


def test_filters_look_at_every_answer_of_a_preference(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    french = "Quelle ville se trouve au bord du fleuve et tient un marché chaque matin ?"
    records = [preference(ASKED, LONG.format("Lima"), "It is Lima, the city."), preference(french, "La ville de Lyon.")]
    write("train.json", [*records, preference(ASKED, "It is the city of Oslo.", "It is Bern, the city.")])
    write("dev.json", [records[1]])
    data = {"maxLength": 512, "validation": {"uri": "pvc://data/dev.json"}}
    whole = prepare_comparisons(job("train.json", stage="reward", **data), tokenizer, locations)
    longest = max(len(answer) for answer in next(iter(whole.comparisons)).answers)
    filters = {"languages": ["en"], "maxTokens": longest - 1}
    found = prepare_comparisons(job("train.json", stage="reward", filters=filters, **data), tokenizer, locations)
    assert found.report["sources"][0]["dropped"] == {
        f"longer than filters.maxTokens, {longest - 1} tokens": {"count": 1, "examples": ["train.json, instance 1"]},
        "a language that filters.languages lacks, fr": {"count": 1, "examples": ["train.json, instance 2"]},
    }
    assert len(found.comparisons) == len(found.held_out or []) == 1
    with pytest.raises(JobFailure, match=r"dataset.filters.languages has xx; languages that can be told"):
        prepare_comparisons(job("train.json", stage="reward", filters={"languages": ["xx"]}), tokenizer, locations)


def test_a_dataset_mixed_in_of_which_nothing_is_left_is_said(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.json", [preference("q", "a")])
    write("bad.json", [preference("q", "a", "a")])
    for file, said in (("train", r"all 1 records repeat earlier ones"), ("bad", "the same answer twice")):
        mix = [{"uri": f"pvc://data/{file}.json", "weight": 1.0}]
        with pytest.raises(JobFailure, match=rf"dataset.mix\[0\].uri: .*{said}"):
            prepare_comparisons(job("train.json", stage="reward", mix=mix, deduplication=EXACT), tokenizer, locations)


def prompts_of(wanted: JobDocument, tokenizer: PreTrainedTokenizerFast, locations: Locations) -> PromptData:
    alignment = JobAlignment(steps=[AlignStep.model_validate({"raft": {}})], generation=Generation(max_new_tokens=8))
    return prepare_prompts(
        wanted.model_copy(update={"stage": Stage.ALIGN, "alignment": alignment}), tokenizer, locations
    )


def test_prompts_are_deduplicated_and_filtered(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    near = ASKED.replace("three bridges", "four bridges")
    prompts = [ASKED, "Count.", near, ASKED]
    write("prompts.json", [{"prompt": prompt} for prompt in prompts])
    write("dev.json", [{"prompt": near}, {"prompt": "Name a metal."}])
    data = {"validation": {"uri": "pvc://data/dev.json"}, "maxLength": 512}

    def kept(**fields: Any) -> PromptData:
        return prompts_of(job("prompts.json", **data, **fields), tokenizer, locations)

    assert len(kept().prompts) == 4
    exact = kept(deduplication=EXACT)
    assert ([one.messages[0]["content"] for one in exact.prompts], told(exact.report)) == (prompts[:3], (4, 4, 1))
    alike = kept(deduplication=NEAR)
    assert ([one.messages[0]["content"] for one in alike.prompts], told(alike.report)) == (prompts[:2], (4, 4, 2))
    assert "1 of 2 held-out records are much like one of the training data." in alike.warnings
    short = kept(filters={"minTokens": 40}, deduplication=EXACT)
    assert [one.messages[0]["content"] for one in short.prompts] == [ASKED, near]
    assert len(short.held_out) == 2
    assert any("1 of 4 records are left out: shorter than filters.minTokens, 40" in said for said in short.warnings)
