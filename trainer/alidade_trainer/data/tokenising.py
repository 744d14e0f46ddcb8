"""Examples of one address as samples of tokens, each checked, counted and named when it is left out."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import DataFormat
from alidade_crds.contract import Stage
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Conversation, Example, Messages, Preference, Prompt, Text, read_examples
from alidade_engine.data.records import DataFiles, Position, Record, find_files, read_files
from alidade_engine.digests import file_digest
from alidade_engine.sources import Locations
from alidade_engine.templates import RenderError, check_agreement, encode_texts, render_batch
from alidade_trainer.data.report import SourceReport
from alidade_trainer.data.sequences import SampleBuilder, Samples
from alidade_trainer.failures import JobFailure

_BATCH = 512  # records tokenised at once: enough for the tokenizer's threads, little memory

NO_ANSWER = "no turn of the assistant with text in it"
NO_TEXT = "no text"
TOO_LONG = "longer than maxLength"
CUT_OFF = "a sampled answer that does not end within ghostAttention.maxNewTokens or the model's context"
EMPTY_SAMPLE = "a sampled answer without text"
NOT_ASKED = "no turn of the user that ghostAttention's instruction could stand before"


@dataclass(frozen=True)
class TokenisedSource:
    """Samples of one address; keys: (samples,) uint64, equal for samples of equal records."""

    samples: Samples
    keys: NDArray[np.uint64]
    report: SourceReport


@dataclass(frozen=True)
class Rules:
    """How records become samples: stage, longest sample in tokens, and the Jinja source of the template."""

    stage: Stage
    max_length: int
    template: str


@dataclass(frozen=True)
class SampledAnswer:
    """The last answer of a conversation, sampled from the start model.

    prompt_ids: the conversation before it, as it is trained on. answer_ids: with the token that ended it; finished is
    False where the length limit did.
    """

    prompt_ids: list[int]
    answer_ids: list[int]
    text: str
    finished: bool


class OpenedSource:
    """One address of records: its files are found and their examples can be read, as often as wanted."""

    def __init__(
        self,
        locations: Locations,
        uri: str,
        wanted: DataFormat,
        *,
        field: str = "dataset.uri",
        mixed: bool = False,
    ) -> None:
        """field names the address in messages; mixed data may be plain text whatever the stage is."""
        self.uri = uri
        self.field = field
        self.mixed = mixed
        self._wanted = wanted
        path: Path = locations.resolve_data(uri, field=field)
        with self._named():
            self._files: DataFiles = find_files(path)

    def examples(self) -> Iterator[tuple[Example, Position]]:
        """Examples with their places. Raises JobFailure as `read_files` and `read_examples` do, naming the field."""
        with self._named():
            yield from read_examples(read_files(self._files), self._wanted)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the field before the message of a failure within."""
        try:
            yield
        except JobFailure as failure:
            raise JobFailure(failure.reason, f"{self.field}: {failure.message}", failure.retryable) from failure

    def examples_with(self, key: str) -> Iterator[tuple[Example, Position, Any]]:
        """As `examples`, with what each one's record has under a further key; None where it has nothing."""
        present: list[Any] = [None]

        def noted() -> Iterator[Record]:
            for record in read_files(self._files):
                present[0] = record.value.get(key)
                yield record

        with self._named():
            for example, position in read_examples(noted(), self._wanted):
                yield example, position, present[0]

    def report(self) -> SourceReport:
        """The files and their digests; nothing is counted yet."""
        digests = {self._files.name(file): file_digest(file) for file in self._files.files}
        total = hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode())
        held_out = [self._files.name(file) for file in self._files.held_out]
        return SourceReport(self.uri, "", digests, f"sha256:{total.hexdigest()}", held_out_files=held_out)


def tokenise(
    source: OpenedSource,
    tokenizer: PreTrainedTokenizerBase,
    rules: Rules,
    sampled: Mapping[int, SampledAnswer | None] | None = None,
) -> TokenisedSource:
    """All samples of an address.

    sampled: by number of the example, from 0, what is learned in its place: the sampled answer alone; None where there
    is nothing to sample an answer for.
    Raises JobFailure: DataMalformed for records that the stage cannot learn from, TemplateFailed naming the record that
    the template cannot render.
    """
    work = _Work(source, tokenizer, rules, sampled or {})
    examples = source.examples()
    while batch := list(islice(examples, _BATCH)):
        work.take(batch)
    return work.finish()


def fault_of_sample(answer: SampledAnswer | None, rules: Rules) -> str:
    """Why a sampled answer cannot be learned; empty when it can."""
    if answer is None:
        return NOT_ASKED
    if len(answer.prompt_ids) + max(1, len(answer.answer_ids)) > rules.max_length:
        return _too_long(rules)
    if not answer.finished:
        return CUT_OFF
    return "" if answer.text.strip() else EMPTY_SAMPLE


def _too_long(rules: Rules) -> str:
    return f"{TOO_LONG}, {rules.max_length} tokens"


class _Work:
    def __init__(
        self,
        source: OpenedSource,
        tokenizer: PreTrainedTokenizerBase,
        rules: Rules,
        sampled: Mapping[int, SampledAnswer | None],
    ) -> None:
        self._tokenizer = tokenizer
        self._rules = rules
        self._sampled = sampled
        self._field = source.field
        self._mixed = source.mixed
        self._builder = SampleBuilder()
        self._keys: list[int] = []
        self._seen: set[int] = set()
        self._agreed = False
        self.report = source.report()

    def take(self, batch: list[tuple[Example, Position]]) -> None:
        texts: list[str] = []
        chats: list[tuple[Messages, Position]] = []
        for example, position in batch:
            number = self.report.records
            self.report.records += 1
            if number in self._sampled:
                self._add_sampled(self._sampled[number], example, position)
            else:
                self._sort(example, position, texts, chats)
        for ids in encode_texts(self._tokenizer, texts):
            self._add_text(ids)
        self._add_chats(chats)

    def finish(self) -> TokenisedSource:
        return TokenisedSource(self._builder.build(), np.array(self._keys, dtype=np.uint64), self.report)

    def _sort(
        self,
        example: Example,
        position: Position,
        texts: list[str],
        chats: list[tuple[Messages, Position]],
    ) -> None:
        self.report.shape = self.report.shape or type(example).__name__.lower()
        if isinstance(example, Text) and (self._rules.stage is Stage.PRETRAIN or self._mixed):
            if example.text.strip():
                texts.append(example.text)
            else:
                self.report.drop(NO_TEXT, position)
        elif isinstance(example, Conversation | Prompt) and self._rules.stage is Stage.SFT:
            if any(turn["role"] == "assistant" and turn["content"].strip() for turn in example.messages):
                chats.append((example.messages, position))
            else:
                self.report.drop(NO_ANSWER, position)
        else:
            raise self._unusable(example, position)

    def _unusable(self, example: Example, position: Position) -> JobFailure:
        names = {Text: "plain text", Preference: "preferences", Conversation: "prompts with answers", Prompt: "prompts"}
        advice = {
            (Stage.SFT, Text): "sft learns from prompts with answers; use method: pretrain for plain text",
            (Stage.SFT, Preference): "sft learns from prompts with answers; train a RewardModel on preferences",
            (
                Stage.PRETRAIN,
                Conversation,
            ): 'pretrain learns from plain text ({"text": …}); use method: sft for answers',
        }
        kind = type(example)
        need = advice.get((self._rules.stage, kind), 'pretrain learns from plain text ({"text": …})')
        return JobFailure(FailureReason.DATA_MALFORMED, f"{self._field}: {position} holds {names[kind]}; {need}.")

    def _add_text(self, ids: list[int]) -> None:
        """Plain text is never too long: it is learned in blocks, which lose nothing but what stands before each."""
        key = self._key(ids)
        for start in range(0, len(ids), self._rules.max_length):
            block = ids[start : start + self._rules.max_length]
            if len(block) > 1:  # a single token has nothing to be predicted from
                self._builder.add(block, [True] * len(block))
                self._keys.append(key)
        self._keep(key)

    def _add_chats(self, chats: list[tuple[Messages, Position]]) -> None:
        try:
            if chats and not self._agreed:
                check_agreement(self._tokenizer, chats[0][0], self._rules.template)
                self._agreed = True
            rendered = render_batch(self._tokenizer, [messages for messages, _ in chats], self._rules.template)
        except RenderError as error:
            raise JobFailure(
                FailureReason.TEMPLATE_FAILED,
                f"dataset.template cannot render {chats[error.index][1]}: {error.message.rstrip('.')}.",
            ) from error
        for (_, position), item in zip(chats, rendered, strict=True):
            if len(item.input_ids) > self._rules.max_length:
                self.report.drop(_too_long(self._rules), position)
            elif not any(item.answer_mask[1:]):
                self.report.drop(NO_ANSWER, position)
            else:
                key = self._key(item.input_ids)
                self._builder.add(item.input_ids, item.answer_mask)
                self._keys.append(key)
                self._keep(key)

    def _add_sampled(self, answer: SampledAnswer | None, example: Example, position: Position) -> None:
        """A conversation whose last answer was sampled; the answers before it are read and not learned."""
        self.report.shape = self.report.shape or type(example).__name__.lower()
        fault = fault_of_sample(answer, self._rules)
        if answer is None or fault:
            self.report.drop(fault, position)
        else:
            ids = [*answer.prompt_ids, *answer.answer_ids]
            key = self._key(ids)
            self._builder.add(ids, [False] * len(answer.prompt_ids) + [True] * len(answer.answer_ids))
            self._keys.append(key)
            self._keep(key)

    def _keep(self, key: int) -> None:
        self.report.kept += 1
        self.report.duplicates += key in self._seen
        self._seen.add(key)

    @staticmethod
    def _key(ids: list[int]) -> int:
        digest = hashlib.blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=8).digest()
        return int.from_bytes(digest, "big")
