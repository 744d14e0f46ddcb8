"""Where ghost attention's instruction stands, what of it is learned, and which conversations it takes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from alidade_crds.blocks import DataFormat, GhostAttention
from alidade_crds.contract import JobDocument
from alidade_engine.sources import Locations
from alidade_engine.templates import render_prompts, resolve_template
from alidade_trainer.data.dataset import prepare
from alidade_trainer.data.ghost_attention import GhostPrompt, ghost_prompts
from alidade_trainer.data.sequences import NO_LOSS
from alidade_trainer.data.tokenising import OpenedSource, SampledAnswer
from alidade_trainer.failures import JobFailure

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Any]
TALK = {
    "messages": [
        {"role": "user", "content": "question one?"},
        {"role": "assistant", "content": "answer one"},
        {"role": "user", "content": "question two?"},
        {"role": "assistant", "content": "answer two"},
    ]
}
RULE = "Be brief."


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def chosen(
    locations: Locations, tokenizer: PreTrainedTokenizerFast, spec: GhostAttention, *, seed: int = 0
) -> list[GhostPrompt]:
    source = OpenedSource(locations, "pvc://data/train.jsonl", DataFormat.AUTO)
    return ghost_prompts(source, tokenizer, resolve_template(tokenizer, "chatml"), spec, seed=seed)


def test_the_instruction_is_on_every_turn_for_sampling_and_on_the_first_for_training(
    write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", lines(TALK))
    (prompt,) = chosen(locations, tokenizer, GhostAttention(instructions=[RULE]))
    source = resolve_template(tokenizer, "chatml")
    first, answer, second, _ = (turn["content"] for turn in TALK["messages"])

    def talk(one: str, two: str) -> list[int]:
        turns = [("user", one), ("assistant", answer), ("user", two)]
        return render_prompts(tokenizer, [[{"role": role, "content": text} for role, text in turns]], source)[0]

    assert prompt.asked == talk(f"{RULE}\n\n{first}", f"{RULE}\n\n{second}")
    assert prompt.trained == talk(f"{RULE}\n\n{first}", second)


def test_only_the_sampled_answer_is_learned_and_earlier_ones_are_masked(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", lines(TALK, TALK))
    prompt, _ = chosen(locations, tokenizer, GhostAttention(instructions=[RULE]))
    ids = [*tokenizer("Paris.")["input_ids"], tokenizer.eos_token_id]
    sampled = {0: SampledAnswer(prompt.trained, ids, "Paris.", finished=True)}
    prepared = prepare(job("train.jsonl", template="chatml", packing=False), tokenizer, locations, sampled=sampled)
    items = [prepared.train[row] for row in range(2)]
    ghost = next(item for item in items if RULE in tokenizer.decode(item["input_ids"]))
    plain = next(item for item in items if RULE not in tokenizer.decode(item["input_ids"]))
    assert ghost["input_ids"].tolist() == [*prompt.trained, *ids]
    assert ghost["labels"].tolist() == [NO_LOSS] * len(prompt.trained) + ids
    learned = [token for token in plain["labels"].tolist() if token != NO_LOSS]
    assert "answer one" in tokenizer.decode(learned)
    assert prepared.report["ghost_attention"]["sampled"] == prepared.report["ghost_attention"]["kept"] == 1
    assert prepared.report["ghost_attention"]["mean_answer"] == len(ids)


def test_answers_that_cannot_be_learned_are_counted_with_their_places(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    alone = {"messages": [{"role": "assistant", "content": "answer"}]}
    write("train.jsonl", lines(TALK, TALK, alone, TALK, TALK))
    prompts = chosen(locations, tokenizer, GhostAttention(instructions=[RULE]))
    assert [bool(prompt.asked) for prompt in prompts] == [True, True, False, True, True]
    end = [tokenizer.eos_token_id]
    sampled = {
        0: SampledAnswer(prompts[0].trained, [5] * 4, "cut", finished=False),
        1: SampledAnswer(prompts[1].trained, end, " ", finished=True),
        2: None,
        3: SampledAnswer(prompts[3].trained, [5] * 500 + end, "long", finished=True),
    }
    prepared = prepare(job("train.jsonl", maxLength=256), tokenizer, locations, sampled=sampled)
    for reason, line in (
        ("a sampled answer that does not end within ghostAttention.maxNewTokens or the model's context", 1),
        ("a sampled answer without text", 2),
        ("no turn of the user that ghostAttention's instruction could stand before", 3),
        ("longer than maxLength, 256 tokens", 4),
    ):
        sentence = f"pvc://data/train.jsonl: 1 of 5 records are left out: {reason} (train.jsonl, line {line})."
        assert sentence in prepared.warnings
    assert prepared.report["ghost_attention"]["kept"] == 0
    assert len(prepared.train) == 1


def test_the_choice_depends_on_content_and_seed_and_not_on_the_order(
    write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    talks = [
        {"messages": [{"role": "user", "content": f"question {number}?"}, {"role": "assistant", "content": "answer"}]}
        for number in range(200)
    ]
    spec = GhostAttention(instructions=["Be brief.", "Be kind."], share=0.4)

    def texts(seed: int) -> set[str]:
        return {prompt.messages[0]["content"] for prompt in chosen(locations, tokenizer, spec, seed=seed)}

    write("train.jsonl", lines(*talks))
    forwards = texts(0)
    write("train.jsonl", lines(*reversed(talks)))
    assert texts(0) == forwards
    assert texts(1) != forwards
    assert 50 < len(forwards) < 110  # 80 in the mean, deviation 7
    assert {text.partition("\n\n")[0] for text in forwards} == {"Be brief.", "Be kind."}


def test_an_instruction_can_come_from_the_record(
    write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", lines({**TALK, "rule": "Rhyme."}, TALK))
    (prompt,) = chosen(locations, tokenizer, GhostAttention(field="rule"))
    assert prompt.number == 0
    assert prompt.messages[0]["content"] == "Rhyme.\n\nquestion one?"
    with pytest.raises(JobFailure, match=r"ghostAttention.field is role, but no record of pvc://data/train.jsonl"):
        chosen(locations, tokenizer, GhostAttention(field="role"))


def test_a_prompt_without_an_answer_gets_its_first_and_alpaca_reads_the_instruction_too(
    write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations
) -> None:
    write("train.jsonl", lines({"instruction": "question?", "input": "number 3", "output": "answer"}))
    source = OpenedSource(locations, "pvc://data/train.jsonl", DataFormat.AUTO)
    template = resolve_template(tokenizer, "alpaca")
    (prompt,) = ghost_prompts(source, tokenizer, template, GhostAttention(instructions=[RULE]), seed=0)
    assert f"### Instruction:\n{RULE}\n\nquestion?" in tokenizer.decode(prompt.trained)
    write("train.jsonl", lines({"prompt": "question?"}))
    (prompt,) = chosen(locations, tokenizer, GhostAttention(instructions=[RULE]))
    assert prompt.messages == [{"role": "user", "content": f"{RULE}\n\nquestion?"}]
