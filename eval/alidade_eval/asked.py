"""What is asked of every model, once, whatever number of suites reads the answers."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Protocol, TypeVar

from alidade_crds.contract import JobSuite
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Messages
from alidade_engine.failures import JobFailure
from alidade_eval.items import Item
from alidade_eval.samples import FAILURE, INDEX, Row
from alidade_eval.subjects import Answer, AnswerSettings, Likelihood, LocalModel, RenderError, Subject

Keep = Callable[[Row], None]
CHUNK = 256
"""Records whose likelihoods are computed between two writes: what a kill can lose."""


class Collection(Protocol):
    """Rows of every model on the same records.

    key: names its folder; equal for two suites that ask the same. size: rows of each model.
    """

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int: ...

    def collect(self, subject: Subject, indices: Sequence[int], keep: Keep) -> None:
        """Calls keep with a row (`index` among its fields) for each of the indices, in any order."""


def key_of(kind: str, *parts: object) -> str:
    """A folder's name for what is asked: equal parts, equal name."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def messages_of(items: Sequence[Item]) -> list[Messages]:
    """What is asked. It is part of a key, not the data's address: files may change between two attempts."""
    return [item.messages for item in items]


@dataclass(frozen=True)
class Answers:
    """One answer to each record. Rows: index, text, finished, tokens, or failure."""

    key: str
    items: Sequence[Item] = field(repr=False)
    settings: AnswerSettings
    seed: int

    @classmethod
    def of(cls, suite: JobSuite, items: Sequence[Item], seed: int) -> "Answers":
        """What the suite asks."""
        settings = AnswerSettings(suite.template, suite.max_new_tokens, suite.temperature, suite.top_p)
        return cls(key_of("answers", messages_of(items), asdict(settings)), items, settings, seed)

    @property
    def size(self) -> int:
        """Rows of each model."""
        return len(self.items)

    def collect(self, subject: Subject, indices: Sequence[int], keep: Keep) -> None:
        """As `Collection.collect`."""

        def kept(place: int, answer: Answer) -> None:
            keep(row_of_answer(indices[place], answer))

        items = [self.items[index] for index in indices]
        with rendering(items):
            subject.answers(messages_of(items), self.settings, keys=list(indices), seed=self.seed, keep=kept)


@contextmanager
def rendering(items: Sequence[Item]) -> Iterator[None]:
    """Says which record it was when a template cannot render one. items: of the conversations, in order."""
    try:
        yield
    except RenderError as error:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED,
            f"{items[error.index].position}: {error.message.rstrip('.')}. Set suites[].template to one that fits, such "
            "as chatml.",
        ) from error


def row_of_answer(index: int, answer: Answer) -> Row:
    """The row of an answer."""
    if answer.failure is not None:
        return {INDEX: index, FAILURE: answer.failure}
    return {INDEX: index, "text": answer.text, "finished": answer.finished, "tokens": answer.tokens}


@dataclass(frozen=True)
class CandidateLikelihoods:
    """The likelihood of every candidate of each record. Rows: index, nats, tokens (a list each), or failure."""

    key: str
    items: Sequence[Item] = field(repr=False)
    template: str

    @classmethod
    def of(cls, suite: JobSuite, items: Sequence[Item]) -> "CandidateLikelihoods":
        """What the suite asks."""
        asked = messages_of(items), [item.candidates for item in items]
        return cls(key_of("candidates", asked, suite.template), items, suite.template)

    @property
    def size(self) -> int:
        """Rows of each model."""
        return len(self.items)

    def collect(self, subject: Subject, indices: Sequence[int], keep: Keep) -> None:
        """As `Collection.collect`."""
        model = local(subject)
        for chunk in chunks(indices):
            items = [self.items[index] for index in chunk]
            asked = [(item.messages, candidate) for item in items for candidate in item.candidates]
            with rendering([item for item in items for _ in item.candidates]):
                scored = iter(model.answer_likelihoods(asked, template=self.template))
            for index, item in zip(chunk, items, strict=True):
                keep(row_of_likelihoods(index, [next(scored) for _ in item.candidates]))


@dataclass(frozen=True)
class TextLikelihoods:
    """The likelihood of each record: of a text's tokens, or of the last answer's given what comes before.

    Rows: index, nats, tokens (lists of one), or failure.
    """

    key: str
    items: Sequence[Item] = field(repr=False)
    template: str
    window: int | None
    stride: int | None

    @classmethod
    def of(cls, suite: JobSuite, items: Sequence[Item]) -> "TextLikelihoods":
        """What the suite asks."""
        settings = (suite.template, suite.window, suite.stride)
        asked = messages_of(items), [item.text or item.references for item in items]
        return cls(key_of("texts", asked, settings), items, *settings)

    @property
    def size(self) -> int:
        """Rows of each model."""
        return len(self.items)

    def collect(self, subject: Subject, indices: Sequence[int], keep: Keep) -> None:
        """As `Collection.collect`."""
        model = local(subject)
        for chunk in chunks(indices):
            items = [self.items[index] for index in chunk]
            for index, found in zip(chunk, self._scored(model, items), strict=True):
                keep(row_of_likelihoods(index, [found]))

    def _scored(self, model: LocalModel, items: Sequence[Item]) -> list[Likelihood | str]:
        if items[0].text is not None:  # a dataset has one shape
            texts = [item.text or "" for item in items]
            return list(model.text_likelihoods(texts, window=self.window, stride=self.stride))
        asked = [(item.messages, item.references[0]) for item in items]
        with rendering(items):
            return model.answer_likelihoods(asked, template=self.template)


def row_of_likelihoods(index: int, found: Sequence[Likelihood | str]) -> Row:
    """The row of a record's likelihoods; one that does not fit the context fails the record."""
    failure = next((one for one in found if isinstance(one, str)), None)
    if failure is not None:
        return {INDEX: index, FAILURE: failure}
    known = [one for one in found if isinstance(one, Likelihood)]
    return {INDEX: index, "nats": [one.nats for one in known], "tokens": [one.tokens for one in known]}


def local(subject: Subject) -> LocalModel:
    """The subject as a model of this process."""
    assert isinstance(subject, LocalModel), "the schema lets no endpoint be asked for likelihoods"
    return subject


def chunks(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """The indices, CHUNK at a time."""
    for start in range(0, len(indices), CHUNK):
        yield indices[start : start + CHUNK]


class Keyed(Protocol):
    """What is told apart by its key."""

    @property
    def key(self) -> str: ...


K = TypeVar("K", bound=Keyed)


def distinct(collections: Sequence[K]) -> list[K]:
    """Each collection once, in order."""
    by_key: dict[str, K] = {}
    for one in collections:
        by_key.setdefault(one.key, one)
    return list(by_key.values())


Rows = Mapping[str, Mapping[str, Sequence[Row]]]
"""Rows of every collection by key, then by model, in the order of their indices."""
