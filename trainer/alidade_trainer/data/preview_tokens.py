"""Records as tokens, with those that carry loss, and the counts of a job's data."""

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from alidade_crds.contract import JobDocument, Stage
from alidade_crds.preview import PreviewDocument, PreviewPiece, PreviewRecord
from alidade_engine.data.formats import Example, Messages, Preference, Text
from alidade_engine.data.records import Position
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations
from alidade_engine.templates import RenderError, encode_texts, render_batch, resolve_template
from alidade_trainer.data.dataset import prepare
from alidade_trainer.data.encoding import Encoder, Rules
from alidade_trainer.start_tokenizer import ReadyTokenizer, start_tokenizer

_LONGEST_CHARACTER = 8  # tokens; what is no character by then is shown as the replacement sign that it decodes to


def with_tokens(
    job: JobDocument, wanted: Sequence[tuple[Example, Position]], locations: Locations, limit: int | None
) -> PreviewDocument:
    """The records as the job's tokenizer reads them, and the counts of all."""
    folder = locations.resolve_model(job.model.uri, with_weights=False) if job.model.uri is not None else None
    ready = start_tokenizer(job, folder, locations)
    template = resolve_template(ready.tokenizer, job.dataset.template)
    rules = Rules(job.stage, job.dataset.max_length, template, job.dataset.filters)
    shown = [record for example, place in wanted for record in _as_tokens(example, place, ready.tokenizer, rules)]
    try:
        return PreviewDocument(shown=shown, data=_report(job, ready, locations, limit))
    except JobFailure as failure:
        return PreviewDocument(shown=shown, failure=failure.message)


def _report(job: JobDocument, ready: ReadyTokenizer, locations: Locations, limit: int | None) -> dict[str, Any]:
    if job.stage is Stage.REWARD:
        from alidade_trainer.reward.comparisons import prepare_comparisons  # seconds, for one kind of job

        return prepare_comparisons(job, ready.tokenizer, locations, context_length=ready.context_length).report
    return prepare(
        job,
        ready.tokenizer,
        locations,
        context_length=ready.context_length,
        model_type=ready.model_type,
        limit=limit,
    ).report


def _as_tokens(
    example: Example, place: Position, tokenizer: PreTrainedTokenizerBase, rules: Rules
) -> Iterator[PreviewRecord]:
    """One record, or one for each answer of a preference, whose tokens are those that the reward is of."""
    if isinstance(example, Preference):
        for answer, score in zip(example.answers, example.scores, strict=True):
            messages = [*example.prompt, {"role": "assistant", "content": answer}]
            yield PreviewRecord(
                place=f"{place}, answer of score {score:g}", pieces=_rendered(messages, place, tokenizer, rules)
            )
        return
    encoded = Encoder(tokenizer, rules)([example])
    if isinstance(example, Text):
        (ids,) = encode_texts(tokenizer, [example.text])
        pieces = list(pieces_of(tokenizer, ids, [True] * len(ids)))
    else:
        pieces = _rendered(example.messages, place, tokenizer, rules)
    yield PreviewRecord(place=str(place), fault=encoded.faults.get(0, ""), pieces=pieces)


def _rendered(
    messages: Messages, place: Position, tokenizer: PreTrainedTokenizerBase, rules: Rules
) -> list[PreviewPiece]:
    try:
        (item,) = render_batch(tokenizer, [messages], rules.template)
    except RenderError as error:
        return [PreviewPiece(text=f"[dataset.template cannot render {place}: {error.message}]", learned=False)]
    return list(pieces_of(tokenizer, item.input_ids, [False, *item.answer_mask[1:]]))


def pieces_of(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], learned: Sequence[bool]
) -> Iterator[PreviewPiece]:
    """Tokens with the text of each; those that only together are a character are one piece, learned if the last is.

    The first token of a sample carries no loss whatever the mask says: before it stands nothing to predict it from.
    """

    def text_of(first: int, end: int) -> str:
        text: str = tokenizer.decode(ids[first:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    before, first, start = "", 0, 0
    for end in range(1, len(ids) + 1):
        # With the piece before it, since a token's text depends on whether it is the first: SentencePiece's spaces.
        text = text_of(first, end)
        if not text.endswith("\ufffd") or end - start >= _LONGEST_CHARACTER or end == len(ids):
            is_learned = end > 1 and learned[end - 1]
            yield PreviewPiece(text=text[len(before) :], learned=is_learned, ids=list(ids[start:end]))
            first, start = start, end
            before = text_of(first, end)
