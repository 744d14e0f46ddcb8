"""What is asked: texts of random words whose length in tokens is known from the server, or prompts from a file."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alidade_cli.loadtest.lengths import Lengths

Message = dict[str, str]

# Common words, so that most tokenizers spend about a token on each.
_COMMON = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name team minute idea body back parent face level office"
)
WORDS = tuple(_COMMON.split())


@dataclass(frozen=True)
class Question:
    """One request's content. answer_tokens: longest answer."""

    messages: tuple[Message, ...]
    answer_tokens: int
    seed: int

    @property
    def text(self) -> str:
        """For APIs that take a text: everything said, a line each."""
        return "\n".join(message["content"] for message in self.messages)


@dataclass(frozen=True)
class Scale:
    """Tokens of a prompt of random words: overhead (of the chat template, and BOS) plus per_word for each word."""

    overhead: float
    per_word: float

    @classmethod
    def fitted(cls, points: Sequence[tuple[int, int]]) -> "Scale":
        """The line through measured prompts, each (words, tokens), by least squares."""
        mean_words, mean_tokens = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
        spread = math.fsum((words - mean_words) ** 2 for words, _ in points)
        together = math.fsum((words - mean_words) * (tokens - mean_tokens) for words, tokens in points)
        if not spread or together <= 0:
            return cls(0.0, mean_tokens / mean_words)
        per_word = together / spread
        return cls(max(0.0, mean_tokens - per_word * mean_words), per_word)

    def words(self, tokens: int) -> int:
        """Words of a prompt of so many tokens; a prompt has at least one."""
        return max(1, round((tokens - self.overhead) / self.per_word))


def random_text(generator: random.Random, words: int) -> str:
    """Words in any order: no two texts begin alike for long, so that a cache of prompts has nothing to give."""
    return " ".join(generator.choice(WORDS) for _ in range(words))


def random_questions(scale: Scale, prompts: Lengths, answers: Lengths, *, seed: int) -> Iterator[Question]:
    """Questions without end, the same ones for the same seed and server."""
    generator = random.Random(f"prompts {seed}")
    while True:
        text = random_text(generator, scale.words(prompts.draw(generator)))
        answer_tokens = answers.draw(generator)
        yield Question(({"role": "user", "content": text},), answer_tokens, generator.getrandbits(31))


def questions_of(rows: Sequence[tuple[Message, ...]], answers: Lengths, *, seed: int) -> Iterator[Question]:
    """The prompts of a file in a random order, again and again without end."""
    generator = random.Random(f"prompts {seed}")
    while True:
        for messages in generator.sample(rows, len(rows)):
            yield Question(messages, answers.draw(generator), generator.getrandbits(31))


def read_prompts(path: Path) -> list[tuple[Message, ...]]:
    """Prompts of a JSON lines file: each line a text, {"prompt": TEXT} or {"messages": [{"role", "content"}]}.

    ValueError names the line that is none of these.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            messages = _messages(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error.msg}") from error
        if messages is None:
            raise ValueError(
                f'{path}, line {number}: write "TEXT", {{"prompt": "TEXT"}} or '
                '{"messages": [{"role": "user", "content": "TEXT"}]}'
            )
        rows.append(messages)
    if not rows:
        raise ValueError(f"{path} has no prompts; write one to a line")
    return rows


def _messages(row: Any) -> tuple[Message, ...] | None:
    if isinstance(row, dict) and isinstance(row.get("messages"), list):
        turns = [_turn(turn) for turn in row["messages"]]
        known = tuple(turn for turn in turns if turn is not None)
        return known if known and len(known) == len(turns) else None
    text = row.get("prompt", row.get("inputs")) if isinstance(row, dict) else row
    return ({"role": "user", "content": text},) if isinstance(text, str) and text else None


def _turn(row: Any) -> Message | None:
    role, content = (row.get("role"), row.get("content")) if isinstance(row, dict) else (None, None)
    return {"role": role, "content": content} if isinstance(role, str) and isinstance(content, str) else None
