"""Likelihoods of several answers to one question, whose tokens are read once for all of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alidade_engine.llama_decoding import causal_model, supports
from alidade_engine.scoring import MOST_LOGITS, token_logprobs

MOST_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Read at once, padding included. On a CPU, more only leave its caches; a GPU's units want to be filled."""
_WIDEST = 4096
"""Tokens of a row with several answers: its mask has as many numbers as the square."""
_MASKED = ("sdpa", "eager")
"""Attention that takes a mask of any form."""


@dataclass(frozen=True)
class Question:
    """What is asked, and the answers to it: token ids, at least one of each."""

    context: Sequence[int]
    answers: Sequence[Sequence[int]]

    @property
    def size(self) -> int:
        """Tokens that are read: the last of an answer is only predicted."""
        return len(self.context) + sum(len(answer) - 1 for answer in self.answers)


def shares_contexts(model: PreTrainedModel, longest: int) -> bool:
    """Whether likelihoods with shared contexts can be had of the model, of up to so many tokens."""
    return supports(model, longest) and causal_model(model).config._attn_implementation in _MASKED


def shared_likelihoods(
    model: PreTrainedModel, asked: Sequence[tuple[Sequence[int], Sequence[int]]], *, pad_token_id: int
) -> list[tuple[float, bool]]:
    """For each context and answer what `branch_likelihoods` has; contexts are shared where that is less work.

    An answer without tokens has a log-likelihood of 0.
    """
    found = [(0.0, True)] * len(asked)
    groups = _groups(asked)
    questions = [Question(asked[group[0]][0], [asked[place][1] for place in group]) for group in groups]
    scored = branch_likelihoods(model, questions, pad_token_id=pad_token_id)
    for group, values in zip(groups, scored, strict=True):
        for place, value in zip(group, values, strict=True):
            found[place] = value
    return found


def _groups(asked: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[int]]:
    """Places of answers that share a row, which holds up to twice as many tokens of answers as of the context.

    That far, attention to what is masked costs no more than reading the context again: whole texts, whose context is
    one token, stay apart.
    """
    groups: list[list[int]] = []
    newest: dict[tuple[int, ...], tuple[list[int], int]] = {}  # of a context, and its answers' tokens that are read
    for place, (context, answer) in enumerate(asked):
        if not answer:
            continue
        key, more = tuple(context), len(answer) - 1
        group, read = newest.get(key, ([], 0))
        room = min(2 * len(context), _WIDEST - len(context))
        if not group or (more and read + more > room):
            group, read = [], 0
            groups.append(group)
        group.append(place)
        newest[key] = group, read + more
    return groups


@torch.inference_mode()
def branch_likelihoods(
    model: PreTrainedModel, questions: Sequence[Question], *, pad_token_id: int
) -> list[list[tuple[float, bool]]]:
    """For each answer of each question its log-likelihood in nats, and whether every token of it is the likeliest one.

    A question and all its answers are one row. Each answer's positions go on from the question's end, and a mask lets
    it see the question and itself alone, so that it is scored as if it stood there alone.
    """
    own = causal_model(model)
    found: list[list[tuple[float, bool]]] = [[]] * len(questions)
    for indices in _batches(questions, own.config.vocab_size, MOST_TOKENS[model.device.type]):
        batch = [questions[index] for index in indices]
        width = max(question.size for question in batch)
        ids, positions, sees = (part.to(model.device) for part in _laid_out(batch, width, pad_token_id))
        # Where no row branches, plain causal attention does, which is faster; nothing looks at what pads the ends.
        mask = _additive(sees, model.dtype) if any(map(_has_branches, batch)) else None
        hidden = own.model(
            input_ids=ids, position_ids=positions if mask is not None else None, attention_mask=mask, use_cache=False
        ).last_hidden_state  # (batch, width, hidden)
        places = torch.tensor([row * width + place for row, one in enumerate(batch) for place in _places(one)])
        targets = torch.tensor([token for one in batch for answer in one.answers for token in answer])
        logits = own.lm_head(hidden.flatten(0, 1)[places.to(model.device)])  # (answer tokens, vocabulary)
        targets = targets.to(model.device)
        right = (logits.argmax(-1) == targets).tolist()
        scores = iter(zip(token_logprobs(logits, targets).tolist(), right, strict=True))
        for index, question in zip(indices, batch, strict=True):
            tokens = [[next(scores) for _ in answer] for answer in question.answers]
            found[index] = [(sum(score for score, _ in one), all(is_best for _, is_best in one)) for one in tokens]
    return found


def _batches(questions: Sequence[Question], vocabulary: int, most_tokens: int) -> Iterator[list[int]]:
    """Questions of like lengths; at least one, and no more tokens with padding than most_tokens."""
    batch: list[int] = []
    most = min(most_tokens, MOST_LOGITS // vocabulary)
    for index in sorted(range(len(questions)), key=lambda index: questions[index].size):
        if batch and (len(batch) + 1) * questions[index].size > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _has_branches(question: Question) -> bool:
    """Whether tokens of more than one answer are read."""
    return sum(len(answer) > 1 for answer in question.answers) > 1


def _places(question: Question) -> Iterator[int]:
    """In its row, the place whose logits tell each token of each answer."""
    begin = len(question.context)
    for answer in question.answers:
        yield len(question.context) - 1
        yield from range(begin, begin + len(answer) - 1)
        begin += len(answer) - 1


def _laid_out(batch: Sequence[Question], width: int, pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, width) ids and positions, and (batch, width, width) what each place sees.

    What pads a row sees what stands before it: a place that sees nothing would have no attention at all.
    """
    ids = torch.full((len(batch), width), pad_token_id)
    positions = torch.zeros_like(ids)
    sees = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(batch), 1, 1)
    for row, question in enumerate(batch):
        read = [*question.context, *(token for answer in question.answers for token in answer[:-1])]
        ids[row, : len(read)] = torch.tensor(read)
        begin = len(question.context)
        positions[row, :begin] = torch.arange(begin)
        first = begin
        for answer in question.answers:
            end = begin + len(answer) - 1
            positions[row, begin:end] = torch.arange(first, first + end - begin)
            sees[row, begin:end, first:begin] = False
            begin = end
    return ids, positions, sees


def _additive(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, 1, width, width) what is added to attention's scores."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min).unsqueeze(1)
