"""Examples as samples of tokens, batch by batch, in this process or in several at once.

What is done here needs no torch, so that a further process is there within a second.
"""

import hashlib
import multiprocessing
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alidade_crds.contract import Stage
from alidade_crds.text_dataset import Filters
from alidade_engine.data.formats import Conversation, Messages, Prompt, Text
from alidade_engine.templates import RenderError, encode_texts, render_batch
from alidade_trainer.data.languages import language_of
from alidade_trainer.data.likeness import PERMUTATIONS, signature

NO_ANSWER = "no turn of the assistant with text in it"
NO_TEXT = "no text"
TOO_LONG = "longer than maxLength"

Learnable = Text | Conversation | Prompt


@dataclass(frozen=True)
class Rules:
    """How records become samples.

    max_length: of a sample, in tokens. template: its Jinja source. filters: which records are learned. with_signatures:
    whether records are to be compared by what they say.
    """

    stage: Stage
    max_length: int
    template: str
    filters: Filters | None = None
    with_signatures: bool = False


@dataclass(frozen=True)
class Encoded:
    """A batch of examples as samples of tokens.

    tokens, learned: (tokens,) of all samples in a row, int32 and bool. lengths: (samples,) of each. places: (samples,)
    the example that each comes from; a long text has several. keys: (examples,) uint64, equal for equal tokens.
    signatures: (examples, PERMUTATIONS) uint32, see `likeness`; without rows when nobody asked for them.
    faults: why an example has no sample, by its place. unrendered: the place of one that the template cannot render,
    and why; nothing else holds then.
    """

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]
    lengths: NDArray[np.int32]
    places: NDArray[np.int32]
    keys: NDArray[np.uint64]
    signatures: NDArray[np.uint32]
    faults: dict[int, str] = field(default_factory=dict)
    unrendered: tuple[int, str] | None = None


class Encoder:
    """Makes samples of examples: a function of the tokenizer, the rules and the examples alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rules: Rules) -> None:
        self._tokenizer = tokenizer
        self._rules = rules

    def __call__(self, batch: Sequence[Learnable]) -> Encoded:
        """The samples of a batch."""
        work = _Batch(self._rules, len(batch))
        texts, chats = [], []
        for place, example in enumerate(batch):
            fault = self._fault_of_words(example)
            if fault:
                work.faults[place] = fault
            elif isinstance(example, Text):
                texts.append((place, example.text))
            else:
                chats.append((place, example.messages))
        for (place, _), ids in zip(texts, encode_texts(self._tokenizer, [text for _, text in texts]), strict=True):
            work.add_text(place, ids)
        try:
            rendered = render_batch(self._tokenizer, [messages for _, messages in chats], self._rules.template)
        except RenderError as error:
            return _Batch(self._rules, 0).encoded([], unrendered=(chats[error.index][0], error.message))
        for (place, _), item in zip(chats, rendered, strict=True):
            work.add_chat(place, item.input_ids, item.answer_mask)
        return work.encoded(batch)

    def _fault_of_words(self, example: Learnable) -> str:
        """Why what an example says is not learned, whatever its tokens are; empty when nothing is wrong."""
        if isinstance(example, Text):
            if not example.text.strip():
                return NO_TEXT
        elif not any(turn["role"] == "assistant" and turn["content"].strip() for turn in example.messages):
            return NO_ANSWER
        return fault_of_language(self._rules.filters, words_of(example))


class _Batch:
    """Samples of a batch as they are found."""

    def __init__(self, rules: Rules, examples: int) -> None:
        self._rules = rules
        self._samples: list[tuple[int, list[int], list[bool]]] = []
        self._keys = np.zeros(examples, dtype=np.uint64)
        self.faults: dict[int, str] = {}

    def add_text(self, place: int, ids: list[int]) -> None:
        """Plain text is never too long: it is learned in blocks, which lose nothing but what stands before each."""
        if self._is_filtered(place, ids):
            return
        self._keys[place] = key_of(ids)
        for start in range(0, len(ids), self._rules.max_length):
            block = ids[start : start + self._rules.max_length]
            if len(block) > 1:  # a single token has nothing to be predicted from
                self._samples.append((place, block, [True] * len(block)))

    def add_chat(self, place: int, ids: list[int], answers: list[bool]) -> None:
        if self._is_filtered(place, ids):
            return
        if len(ids) > self._rules.max_length:
            self.faults[place] = too_long(self._rules)
        elif not any(answers[1:]):
            self.faults[place] = NO_ANSWER
        else:
            self._keys[place] = key_of(ids)
            self._samples.append((place, ids, answers))

    def _is_filtered(self, place: int, ids: list[int]) -> bool:
        fault = fault_of_length(self._rules.filters, len(ids), len(ids))
        if fault:
            self.faults[place] = fault
        return bool(fault)

    def encoded(self, batch: Sequence[Learnable], unrendered: tuple[int, str] | None = None) -> Encoded:
        """All that was added, in the order of the examples."""
        samples = sorted(self._samples, key=lambda sample: sample[0])
        tokens, learned = array("i"), bytearray()  # grow three times as fast as numpy takes lists
        for _, ids, marks in samples:
            tokens.extend(ids)
            learned.extend(marks)
        return Encoded(
            tokens=np.array(tokens, dtype=np.int32),
            learned=np.frombuffer(learned, dtype=np.bool_),
            lengths=np.array([len(ids) for _, ids, _ in samples], dtype=np.int32),
            places=np.array([place for place, _, _ in samples], dtype=np.int32),
            keys=self._keys,
            signatures=np.array(
                [signature(words_of(one)) for one in batch] if self._rules.with_signatures else [], dtype=np.uint32
            ).reshape(-1, PERMUTATIONS),
            faults=self.faults,
            unrendered=unrendered,
        )


def fault_of_length(filters: Filters | None, shortest: int, longest: int) -> str:
    """Why a record with sequences of so many tokens is filtered out; empty when it is not."""
    if filters is None:
        return ""
    if filters.min_tokens is not None and shortest < filters.min_tokens:
        return f"shorter than filters.minTokens, {filters.min_tokens} tokens"
    if filters.max_tokens is not None and longest > filters.max_tokens:
        return f"longer than filters.maxTokens, {filters.max_tokens} tokens"
    return ""


def fault_of_language(filters: Filters | None, words: str) -> str:
    """Why a record that says these words is filtered out; empty when it is not."""
    wanted = filters.languages if filters is not None else []
    language = language_of(words) if wanted else None
    return "" if language is None or language in wanted else f"a language that filters.languages lacks, {language}"


def too_long(rules: Rules) -> str:
    """Why a sample of too many tokens is left out."""
    return f"{TOO_LONG}, {rules.max_length} tokens"


def words_of(example: Learnable) -> str:
    """What is said in an example, but for the system's turn, which many records share."""
    if isinstance(example, Text):
        return example.text
    return said_in(example.messages)


def said_in(messages: Messages) -> str:
    """The words of all turns but the system's."""
    return "\n".join(turn["content"] for turn in messages if turn["role"] != "system")


def key_of(ids: Sequence[int]) -> int:
    """64 bits that are equal for equal tokens, and for others with a probability of 2^-64."""
    digest = hashlib.blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


Encode = Callable[[Iterable[Sequence[Learnable]]], Iterator[Encoded]]
"""Batches to what became of them, in the same order."""


@contextmanager
def encoding(encoder: Encoder, *, processes: int) -> Iterator[Encode]:
    """Encodes batches in so many processes; 1 is this one. The result is the same whatever their number."""
    if processes < 2:
        yield lambda batches: map(encoder, batches)
        return
    # Not a fork: this process has threads, of the tokenizer and of the server that shows progress.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(encoder,)) as pool:
        yield lambda batches: _in_order(pool, batches, ahead=2 * processes)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[Sequence[Learnable]], *, ahead: int) -> Iterator[Encoded]:
    """Keeps `ahead` batches under way, so that memory does not grow when reading is faster than encoding."""
    under_way: deque[Future[Encoded]] = deque()
    try:
        for batch in batches:
            under_way.append(pool.submit(_encode, batch))
            if len(under_way) >= ahead:
                yield under_way.popleft().result()
    except Exception:
        # A record cannot be read: what stands before it has its say first, as in one process.
        yield from (one.result() for one in under_way)
        raise
    yield from (one.result() for one in under_way)


_encoder: Encoder | None = None  # of a further process


def _start(encoder: Encoder) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for each core
    _encoder = encoder


def _encode(batch: Sequence[Learnable]) -> Encoded:
    assert _encoder is not None, "the process was started with it"
    return _encoder(batch)
