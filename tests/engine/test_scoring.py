"""Log-probabilities, against a formula in double precision."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_engine.scoring import sequence_logprobs, token_logprobs
from alidade_engine.templates import Rendered, render


def test_bfloat16_logits_are_normalised_in_float32() -> None:
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.tensor([1, 2, 3, 4])
    expected = logits.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    found = token_logprobs(logits, targets)
    assert found.dtype is torch.float32
    # float32 has 24 bits of mantissa: sums of 1000 terms are right to about 1e-6.
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)


def test_a_batch_scores_each_sequence_as_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    sequences = [
        render(tokenizer, [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}])
        for ask, answer in (("hello", "fine"), ("中国的首都是哪里？", "北京"), ("a", "What is the capital of France?"))
    ]
    scores = sequence_logprobs(model, sequences, pad_token_id=tokenizer.pad_token_id, batch_size=2)
    for sequence, score in zip(sequences, scores, strict=True):
        ids = torch.tensor([sequence.input_ids])
        with torch.no_grad():
            naive = model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        expected = naive[torch.tensor(sequence.answer_mask[1:])]
        assert score.shape == (sum(sequence.answer_mask),)
        # Attention over padded and unpadded batches rounds differently in float32.
        torch.testing.assert_close(score.double(), expected, atol=2e-5, rtol=1e-5)


def test_batches_are_as_small_as_their_logits_ask_for(model: PreTrainedModel) -> None:
    sequences = [Rendered(list(range(4, 4 + length)), [place >= 3 for place in range(length)]) for length in (9, 5, 7)]
    whole = sequence_logprobs(model, sequences, pad_token_id=0)
    read: list[tuple[int, ...]] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    small = sequence_logprobs(model, sequences, pad_token_id=0, most_logits=14 * model.config.vocab_size)
    hook.remove()
    assert read == [(2, 6), (1, 8)]
    for one, other in zip(whole, small, strict=True):
        # As above: batches of other shapes round differently.
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_a_first_token_has_no_score(model: PreTrainedModel) -> None:
    (score,) = sequence_logprobs(model, [Rendered([5, 6, 7], [True, False, True])], pad_token_id=0)
    assert score.shape == (1,)
