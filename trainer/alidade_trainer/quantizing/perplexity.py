"""Texts to calibrate on and to measure on: perplexity, over the same windows for every model of one tokenizer."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.blocks import DataFormat
from alidade_crds.contract import QuantizationDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Conversation, Example, Preference, Prompt, Text
from alidade_engine.encoding import Rendered, encode_texts
from alidade_engine.perplexity import perplexity_of
from alidade_engine.scoring import sequence_logprobs
from alidade_engine.sources import Locations
from alidade_trainer.data.tokenising import OpenedSource
from alidade_trainer.failures import JobFailure

FIELD = "spec.quantization.calibration.uri"
_BUILT_IN = Path(__file__).with_name("text.txt")
# Longer contexts change the level of both perplexities, hardly their ratio, and cost time.
_WINDOW = 512
# What calibrates sees contexts as long as those that are served (GPTQ, section 4: 2048 tokens).
_CALIBRATION_WINDOW = 2048
# Records of one source lie next to one another; the order in which they are dealt out is drawn, always the same.
_DEALING_SEED = 0


@dataclass(frozen=True)
class Measure:
    """Windows of tokens on which models are measured, and the sentence that says what they are."""

    windows: Sequence[Rendered]
    told: str

    def perplexity(self, model: PreTrainedModel, pad_token_id: int) -> float:
        """exp of the mean negative log-probability over the windows' tokens but the first of each."""
        scored = sequence_logprobs(model, self.windows, pad_token_id=pad_token_id)
        nats = -sum(float(one.double().sum()) for one in scored)
        return perplexity_of(nats / sum(len(one) for one in scored))


def measure_of(
    document: QuantizationDocument,
    tokenizer: PreTrainedTokenizerBase,
    locations: Locations,
    context_length: int,
    *,
    calibrated: bool = False,
    computed_in: str = "fp32",
) -> Measure:
    """The windows that a document asks for.

    calibrated: whether the method has seen the texts of `calibration_of`, which are left out then.
    Raises JobFailure: as `OpenedSource`, and DataEmpty when the texts are too short to measure anything.
    """
    texts, source = _texts(document, locations)
    if calibrated:
        texts, source = _dealt(texts)[1::2], f"{source}, those that did not calibrate"
    length = min(_WINDOW, context_length)
    windows = [window for ids in encode_texts(tokenizer, texts) for window in _windows(ids, length)]
    if not windows:
        raise JobFailure(
            FailureReason.DATA_EMPTY, f"{FIELD} is {document.texts}; none of its records has two tokens to measure."
        )
    tokens = sum(len(window.input_ids) - 1 for window in windows)
    return Measure(
        windows,
        f"{tokens} tokens of {source}, as plain text in windows of at most {length} tokens; weights decoded to "
        f"{computed_in}",
    )


def calibration_of(
    document: QuantizationDocument, tokenizer: PreTrainedTokenizerBase, locations: Locations, context_length: int
) -> list[list[int]]:
    """Token ids of every other of the document's texts, in windows: what a method is calibrated on.

    Raises JobFailure: as `OpenedSource`, and DataEmpty when there are not two texts, one for each.
    """
    texts, _ = _texts(document, locations)
    if len(texts) < 2:
        raise JobFailure(
            FailureReason.DATA_EMPTY,
            f"{FIELD} is {document.texts} and has {len(texts)} records; give it 2 or more: every other one calibrates, "
            "the rest is measured.",
        )
    length = min(_CALIBRATION_WINDOW, context_length)
    encoded = encode_texts(tokenizer, _dealt(texts)[0::2])
    return [list(window.input_ids) for ids in encoded for window in _windows(ids, length)]


def _texts(document: QuantizationDocument, locations: Locations) -> tuple[list[str], str]:
    """The document's texts, and what they are called."""
    if document.texts is None:
        return _BUILT_IN.read_text("utf-8").split("\n\n"), "the built-in text in English and Chinese"
    opened = OpenedSource(locations, document.texts, DataFormat.AUTO, field=FIELD)
    texts = ["\n".join(_parts(example)) for example, _ in islice(opened.examples(), document.samples)]
    return texts, f"{len(texts)} records of {document.texts}"


def _dealt(texts: Sequence[str]) -> list[str]:
    order = list(texts)
    random.Random(_DEALING_SEED).shuffle(order)
    return order


def _windows(ids: Sequence[int], length: int) -> Iterator[Rendered]:
    for start in range(0, len(ids), length):
        window = list(ids[start : start + length])
        if len(window) > 1:
            yield Rendered(window, [True] * len(window))


def _parts(example: Example) -> Iterator[str]:
    """The texts of a record, in order; of a preference the first answer."""
    if isinstance(example, Text):
        yield example.text
    elif isinstance(example, Conversation | Prompt):
        yield from (turn["content"] for turn in example.messages)
    elif isinstance(example, Preference):
        yield from (turn["content"] for turn in example.prompt)
        yield example.answers[0]
