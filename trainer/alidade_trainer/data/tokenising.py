"""Examples of one address as samples of tokens, each checked, counted and named when it is left out."""

import hashlib
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
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
from alidade_engine.templates import RenderError, check_agreement
from alidade_trainer.data.encoding import Encoded, Encoder, Learnable, Rules, encoding, key_of, too_long, words_of
from alidade_trainer.data.likeness import signature
from alidade_trainer.data.report import SourceReport
from alidade_trainer.data.sequences import SampleBuilder
from alidade_trainer.failures import JobFailure
from alidade_trainer.topology import count_cores

_BATCH = 512  # records tokenised at once: enough for the tokenizer's threads, little memory
_WORTH_PROCESSES = 16 * 1024 * 1024
"""Bytes of input per further process. Measured: 10 s of work on one core, of which a process takes 1 s to start."""
_MOST_PROCESSES = 32  # one process reads for them all

CUT_OFF = "a sampled answer that does not end within ghostAttention.maxNewTokens or the model's context"
EMPTY_SAMPLE = "a sampled answer without text"
NOT_ASKED = "no turn of the user that ghostAttention's instruction could stand before"


@dataclass(frozen=True)
class TokenisedSource:
    """What came of one address; the samples themselves are in the builder, with the signatures of the records.

    samples: their indices there. record_of: (samples,) the record that each is from, counted among those kept.
    keys: (records,) uint64, equal for equal records. numbers: (records,) which example of the source each is, from 0.
    """

    source: "OpenedSource"
    samples: range
    record_of: NDArray[np.int64]
    keys: NDArray[np.uint64]
    numbers: NDArray[np.int64]
    report: SourceReport


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

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.stat().st_size for file in self._files.files)

    def examples(self) -> Iterator[tuple[Example, Position]]:
        """Examples with their places. Raises JobFailure as `read_files` and `read_examples` do, naming the field."""
        with self._named():
            yield from read_examples(read_files(self._files), self._wanted)

    def places(self, numbers: Sequence[int]) -> list[Position]:
        """Where the examples of these numbers, which rise, stand; all that is before the last is read once more."""
        wanted = iter(numbers)
        number = next(wanted, None)
        found = []
        for place, (_, position) in enumerate(self.examples()):
            if number is None:
                break
            if place == number:
                found.append(position)
                number = next(wanted, None)
        return found

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
    builder: SampleBuilder,
    *,
    sampled: Mapping[int, SampledAnswer | None] | None = None,
    limit: int | None = None,
    processes: int | None = None,
) -> TokenisedSource:
    """Adds all samples of an address to the builder.

    sampled: by number of the example, from 0, what is learned in its place: the sampled answer alone; None where there
    is nothing to sample an answer for. limit: examples that are read; default: all. processes: that tokenise; default:
    as many as there are cores and the input is worth. The result is the same whatever their number.
    Raises JobFailure: DataMalformed for records that the stage cannot learn from, TemplateFailed naming the record that
    the template cannot render.
    """
    work = _Work(source, tokenizer, rules, builder, sampled or {})
    if processes is None:
        processes = min(count_cores(), _MOST_PROCESSES, source.size_bytes // _WORTH_PROCESSES)
    if sampled:
        processes = 1  # sampled answers are added as they are read, in order with the others only then
    with encoding(Encoder(tokenizer, rules), processes=processes) as encode:
        taken = work.batches(islice(source.examples(), limit))
        for encoded in encode(taken):
            work.add(encoded)
    return work.finish()


def fault_of_sample(answer: SampledAnswer | None, rules: Rules) -> str:
    """Why a sampled answer cannot be learned; empty when it can."""
    if answer is None:
        return NOT_ASKED
    if len(answer.prompt_ids) + max(1, len(answer.answer_ids)) > rules.max_length:
        return too_long(rules)
    if not answer.finished:
        return CUT_OFF
    return "" if answer.text.strip() else EMPTY_SAMPLE


class _Work:
    """Takes an address from examples to samples. Batches are read ahead of those that come back encoded."""

    def __init__(
        self,
        source: OpenedSource,
        tokenizer: PreTrainedTokenizerBase,
        rules: Rules,
        builder: SampleBuilder,
        sampled: Mapping[int, SampledAnswer | None],
    ) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._rules = rules
        self._sampled = sampled
        self._field = source.field
        self._mixed = source.mixed
        self._builder = builder
        self._first = len(builder)
        self._record_of = array("q")
        self._keys = array("Q")
        self._numbers = array("q")
        self._waiting: deque[list[tuple[int, Learnable, Position]]] = deque()
        self._agreed = False
        self._read = 0
        self.report = source.report()

    def batches(self, examples: Iterator[tuple[Example, Position]]) -> Iterator[list[Learnable]]:
        """What is to be encoded, batch by batch; examples whose answer was sampled are added at once."""
        while batch := list(islice(examples, _BATCH)):
            kept: list[tuple[int, Learnable, Position]] = []
            for example, position in batch:
                number = self._read
                self._read += 1
                self.report.shape = self.report.shape or type(example).__name__.lower()
                if number in self._sampled:
                    self._add_sampled(number, example, position)
                else:
                    kept.append((number, self._usable(example, position), position))
            self._waiting.append(kept)
            yield [example for _, example, _ in kept]

    def add(self, encoded: Encoded) -> None:
        """The samples of the batch that has waited longest."""
        batch = self._waiting.popleft()
        if encoded.unrendered is not None:
            place, message = encoded.unrendered
            raise _unrendered(batch[place][2], message)
        self.report.records += len(batch)
        for place, fault in encoded.faults.items():
            self.report.drop(fault, batch[place][2])
        kept = np.array([place not in encoded.faults for place in range(len(batch))], dtype=np.bool_)
        numbers = np.cumsum(kept, dtype=np.int64) + len(self._keys) - 1
        self._builder.add_all(encoded.tokens, encoded.learned, encoded.lengths)
        self._record_of.frombytes(numbers[encoded.places].tobytes())
        self._keys.frombytes(encoded.keys[kept].tobytes())
        self._numbers.extend(number for place, (number, _, _) in enumerate(batch) if kept[place])
        if self._rules.with_signatures:
            self._builder.signatures.extend(encoded.signatures[kept])

    def finish(self) -> TokenisedSource:
        """All that was added."""
        keys = np.array(self._keys, dtype=np.uint64)
        self.report.kept = len(keys)
        self.report.duplicates = len(keys) - len(np.unique(keys))
        return TokenisedSource(
            self._source,
            range(self._first, len(self._builder)),
            np.array(self._record_of, dtype=np.int64),
            keys,
            np.array(self._numbers, dtype=np.int64),
            self.report,
        )

    def _usable(self, example: Example, position: Position) -> Learnable:
        """The example, if the stage learns from its kind; else raises JobFailure."""
        if isinstance(example, Text) and (self._rules.stage is Stage.PRETRAIN or self._mixed):
            return example
        if isinstance(example, Conversation | Prompt) and self._rules.stage is Stage.SFT:
            self._check_agreement(example.messages, position)
            return example
        raise self._unusable(example, position)

    def _check_agreement(self, messages: Messages, position: Position) -> None:
        """Looks at the first conversation that has an answer: is it asked for as it is trained on?"""
        if self._agreed or not any(turn["role"] == "assistant" and turn["content"].strip() for turn in messages):
            return
        try:
            check_agreement(self._tokenizer, messages, self._rules.template)
        except RenderError as error:
            raise _unrendered(position, error.message) from error
        self._agreed = True

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

    def _add_sampled(self, number: int, example: Example, position: Position) -> None:
        """A conversation whose last answer was sampled; the answers before it are read and not learned."""
        answer = self._sampled[number]
        self.report.records += 1
        fault = fault_of_sample(answer, self._rules)
        if answer is None or fault:
            self.report.drop(fault, position)
            return
        ids = [*answer.prompt_ids, *answer.answer_ids]
        self._builder.add(ids, [False] * len(answer.prompt_ids) + [True] * len(answer.answer_ids))
        self._record_of.append(len(self._keys))
        self._keys.append(key_of(ids))
        self._numbers.append(number)
        if self._rules.with_signatures and isinstance(example, Conversation | Prompt):
            self._builder.signatures.extend(np.array(signature(words_of(example))))


def _unrendered(position: Position, message: str) -> JobFailure:
    return JobFailure(
        FailureReason.TEMPLATE_FAILED, f"dataset.template cannot render {position}: {message.rstrip('.')}."
    )
