"""What the finished model answers to a few prompts that it was not trained on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from alidade_engine.models import load_model, load_tokenizer
from alidade_engine.sampling import generate
from alidade_trainer.data.dataset import TokenDataset
from alidade_trainer.starting import StartingPoint

ANSWERS = 6
LONGEST_ANSWER = 64  # tokens; enough to judge by eye
_LETTER = 4  # bytes, and so tokens, that a letter has at most in UTF-8


@dataclass(frozen=True)
class SampleAnswer:
    """One prompt with what was expected and what came."""

    prompt: str
    reference: str
    answer: str
    held_out: bool
    """Whether the model has not been trained on it."""
    before: str | None = None
    """The answer before an alignment."""


@dataclass(frozen=True)
class PromptAndReference:
    """Token ids of a prompt, and of the answer it has in the data."""

    prompt: list[int]
    reference: list[int]


def sample_answers(model_folder: Path, start: StartingPoint, device: torch.device) -> list[SampleAnswer]:
    """Greedy answers of the model in a folder, which is read as its users will read it."""
    held_out = start.data.validation is not None
    pairs = first_prompts(start.data.validation or start.data.train, start.tokenizer, ANSWERS)
    if not pairs:
        return []
    model = load_model(model_folder, dtype=torch.float32 if device.type == "cpu" else torch.bfloat16).to(device)
    tokenizer = load_tokenizer(model_folder)
    completions = generate(
        model, tokenizer, [pair.prompt for pair in pairs], max_new_tokens=LONGEST_ANSWER, temperature=0.0
    )
    return [
        SampleAnswer(
            prompt=tokenizer.decode(pair.prompt, skip_special_tokens=True).strip(),
            reference=tokenizer.decode(pair.reference, skip_special_tokens=True).strip(),
            answer=completion.text.strip(),
            held_out=held_out,
        )
        for pair, completion in zip(pairs, completions, strict=True)
    ]


def first_prompts(sequences: TokenDataset, tokenizer: PreTrainedTokenizerBase, count: int) -> list[PromptAndReference]:
    """Up to so many samples cut where their first answer begins; plain text is cut in its middle, between letters."""
    samples = sequences.samples
    pairs = []
    for member in sequences.members[:count]:
        bounds = slice(samples.offsets[member], samples.offsets[member + 1])
        tokens, learned = samples.tokens[bounds], samples.learned[bounds]
        if learned[1:].all():  # every token is learned: no prompt and answer, but plain text
            middle = max(1, min(len(tokens) // 2, LONGEST_ANSWER))
            begin, end = _between_letters(tokenizer, tokens.tolist(), middle), len(tokens)
        else:
            begin = int(np.argmax(learned))
            rest = np.flatnonzero(~learned[begin:])
            end = begin + int(rest[0]) if len(rest) else len(tokens)
        pairs.append(
            PromptAndReference(tokens[:begin].tolist(), tokens[begin : min(end, begin + LONGEST_ANSWER)].tolist())
        )
    return [pair for pair in pairs if pair.prompt and pair.reference]


def _between_letters(tokenizer: PreTrainedTokenizerBase, tokens: list[int], place: int) -> int:
    """The place, or the next at which no letter of several tokens is cut in two."""
    places = range(place, min(place + _LETTER, len(tokens)))
    return next((one for one in places if not tokenizer.decode(tokens[:one]).endswith("\ufffd")), place)
