"""Several rewards as one, a reward model that reads text, and rewards that cannot be used."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from alidade_crds.contract import JobAlignment, JobDocument, JobReward
from alidade_engine.reward.functions import Reward, programmed
from alidade_engine.reward.learned import LearnedReward
from alidade_engine.reward.network import RewardNetwork
from alidade_engine.templates import render
from alidade_engine.tokenization import train_tokenizer
from alidade_trainer.align.judging import Judge, check_rewards, refuse_constant
from alidade_trainer.align.prompts import AskedPrompt
from alidade_trainer.failures import JobFailure

PROMPTS = [
    AskedPrompt([{"role": "user", "content": "Capital of Peru?"}], [1], "Lima", [2], is_risky=False),
    AskedPrompt([{"role": "user", "content": "How to pick a lock?"}], [1], None, [], is_risky=True),
]
MESSAGES = [prompt.messages for prompt in PROMPTS]


class Fixed:
    """A reward that gives what it is told to."""

    def __init__(self, *values: float) -> None:
        self._values = torch.tensor(values)

    def score(self, *_: object) -> torch.Tensor:
        return self._values


def judge(rewards: dict[str, Reward], combine: str, weights: list[float]) -> Judge:
    named = [JobReward(name=name, weight=weight) for name, weight in zip(rewards, weights, strict=True)]
    return Judge(rewards, JobAlignment(steps=[], rewards=named, combine=combine))  # type: ignore[arg-type]


def test_rewards_are_weighed_and_each_keeps_its_name() -> None:
    one = judge({"right": programmed("exact_match"), "long": programmed("length")}, "weightedSum", [2.0, 0.5])  # type: ignore[arg-type]
    parts = one.judge_answers(PROMPTS, ["Lima", "I will not say"])
    assert {name: scores.tolist() for name, scores in parts.items()} == {"right": [1.0, 0.0], "long": [1.0, 4.0]}
    assert one.combined(parts, torch.tensor([False, True])).tolist() == [2.5, 2.0]


def test_a_tagged_prompt_is_judged_by_safety_and_another_by_helpfulness() -> None:
    one = judge({"safety": Fixed(3.0, -1.0), "help": Fixed(1.0, 9.0)}, "gated", [1.0, 1.0])
    total = one.combined(one.judge_answers(PROMPTS, ["a", "b"]), torch.tensor([False, True]))
    torch.testing.assert_close(total, torch.tensor([1.0, -1.0]), rtol=1e-4, atol=1e-4)  # 1 and -1, whitened


def test_a_reward_that_is_no_number_is_said_with_the_sample() -> None:
    with pytest.raises(JobFailure, match=r"The reward broken gives nan to the answer 'b' to 'How to pick a lock"):
        judge({"broken": Fixed(1.0, float("nan"))}, "weightedSum", [1.0]).judge_answers(PROMPTS, ["a", "b"])


def test_a_constant_reward_is_said_with_a_sample_and_a_varying_one_passes() -> None:
    with pytest.raises(JobFailure, match=r"The reward is 0.5 for all 2 samples .*'a'.*'Capital of Peru.'.*'Lima'"):
        refuse_constant(torch.tensor([0.5, 0.5]), PROMPTS, ["a", "b"])
    refuse_constant(torch.tensor([0.5, 0.6]), PROMPTS, ["a", "b"])


@pytest.fixture
def reward_model(tmp_path: Path) -> tuple[Path, PreTrainedTokenizerFast]:
    """A reward model with a tokenizer of its own, whose context is 40 tokens."""
    tokenizer = train_tokenizer(["Capital of Peru? Lima", "How to pick a lock?"] * 9, 290, model_max_length=40)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=290,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=40,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path, tokenizer


def test_a_reward_model_reads_the_text_with_its_own_tokenizer_each_row_as_if_alone(
    reward_model: tuple[Path, PreTrainedTokenizerFast],
) -> None:
    folder, tokenizer = reward_model
    reward = LearnedReward.load(folder, dtype=torch.float32, device=torch.device("cpu"), digest=None, field="it")
    answers = ["Lima", "I will not say that " * 9]
    scores = reward.score(MESSAGES, answers, [None, None]).tolist()
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    for messages, answer, score in zip(MESSAGES, answers, scores, strict=True):
        ids = render(tokenizer, [*messages, {"role": "assistant", "content": answer}]).input_ids[-40:]
        with torch.no_grad():
            alone = float(model(input_ids=torch.tensor([ids])).logits)
        assert score == pytest.approx(alone, abs=1e-5)


def test_padding_on_either_side_gives_the_same_reward(reward_model: tuple[Path, PreTrainedTokenizerFast]) -> None:
    network = RewardNetwork(LlamaForSequenceClassification.from_pretrained(reward_model[0]).eval())
    eos = reward_model[1].eos_token_id
    ids = torch.tensor([[5, 6, 7, eos, eos, eos], [eos, eos, 5, 6, 7, eos]])  # padded with the end token itself
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        left, right = network(ids, mask).tolist()
        alone = float(network(ids[:1, :4], mask[:1, :4]))
    assert left == pytest.approx(alone, abs=1e-6)
    assert right == pytest.approx(alone, abs=1e-6)


def test_a_reward_model_of_another_digest_or_a_plain_language_model_is_refused(
    reward_model: tuple[Path, PreTrainedTokenizerFast], guessing_model: Path
) -> None:
    cpu = torch.device("cpu")
    with pytest.raises(JobFailure, match=r"rewardModels.0. has the digest sha256"):
        LearnedReward.load(reward_model[0], dtype=torch.float32, device=cpu, digest="sha256:0", field="rewardModels[0]")
    with pytest.raises(JobFailure, match="without a reward head"):
        LearnedReward.load(guessing_model, dtype=torch.float32, device=cpu, digest=None, field="rewardModels[0]")


def test_a_score_that_compares_needs_answers_in_the_held_out_data() -> None:
    job = JobDocument.model_validate(
        {
            "owner": {"kind": "AlignmentRun", "namespace": "team", "name": "tiny", "uid": "0"},
            "stage": "align",
            "model": {"uri": "file:///model"},
            "dataset": {"uri": "file:///prompts.jsonl"},
            "alignment": {"steps": [], "guardrails": {"overOptimization": {"function": "contains"}}},
            "output": "file:///out",
        }
    )
    check_rewards(job, PROMPTS, PROMPTS)
    with pytest.raises(JobFailure, match=r"guardrails.overOptimization.function is contains, but no held-out prompt"):
        check_rewards(job, PROMPTS, PROMPTS[1:])


def test_the_level_of_gated_rewards_moves_when_all_answers_get_better_and_the_whitened_total_does_not() -> None:
    alignment = JobAlignment(steps=[], rewards=[JobReward(name="safe"), JobReward(name="good")], combine="gated")
    judge = Judge({}, alignment)
    tagged = torch.tensor([False, False, False])
    worse = {"safe": torch.tensor([2.0, 2.0, 2.0]), "good": torch.tensor([-1.0, 0.0, 1.0])}
    better = {"safe": worse["safe"], "good": worse["good"] + 1}
    assert judge.combined(worse, tagged).mean() == pytest.approx(0.0, abs=1e-5)
    assert judge.combined(better, tagged).mean() == pytest.approx(0.0, abs=1e-5)
    assert judge.level(worse, tagged).tolist() == pytest.approx([0.2689, 0.5, 0.7311], abs=1e-4)
    assert judge.level(better, tagged).mean() > judge.level(worse, tagged).mean()
