"""Records as a job would train on them, before it is started: their tokens, those that carry loss, and the counts.

Without a model there are only words, and nothing is loaded that would take seconds.
"""

import sys
from itertools import islice

from pydantic import ValidationError

from alidade_crds.preview import PreviewDocument, PreviewPiece, PreviewRecord, PreviewRequest
from alidade_engine.data.formats import Example, Messages, Preference, Text, read_examples
from alidade_engine.data.records import Position, find_files, read_files
from alidade_engine.failures import JobFailure
from alidade_engine.imports import large_imports
from alidade_engine.sources import Locations


def show(request: str) -> int:
    """Prints the answer to a request, both as JSON. Returns the exit code: 1 when nothing can be shown."""
    try:
        document = preview(PreviewRequest.model_validate_json(request), Locations.from_environment())
    except (JobFailure, ValidationError) as error:
        print(error.message if isinstance(error, JobFailure) else error, file=sys.stderr)
        return 1
    print(document.model_dump_json(by_alias=True))
    return 0


def preview(request: PreviewRequest, locations: Locations) -> PreviewDocument:
    """The records asked for and the counts of all. Raises JobFailure for what keeps records from being read at all."""
    job = request.job
    files = find_files(locations.resolve_data(job.dataset.address))
    examples = read_examples(read_files(files), job.dataset.format)
    wanted = list(islice(examples, request.first - 1, request.first - 1 + request.records))
    if job.model.uri is None and job.model.init is None:
        return PreviewDocument(shown=[_as_turns(example, place) for example, place in wanted])
    with large_imports():
        from alidade_trainer.data.preview_tokens import with_tokens

    return with_tokens(job, wanted, locations, request.limit)


def _as_turns(example: Example, place: Position) -> PreviewRecord:
    """What is said and by whom, where no tokenizer is known."""
    if isinstance(example, Text):
        pieces = [PreviewPiece(text=example.text, learned=True)]
    elif isinstance(example, Preference):
        pieces = [*_turns(example.prompt), *(PreviewPiece(text=answer, learned=True) for answer in example.answers)]
    else:
        pieces = _turns(example.messages)
    return PreviewRecord(place=str(place), pieces=pieces)


def _turns(messages: Messages) -> list[PreviewPiece]:
    return [
        PreviewPiece(text=f"{turn['role']}: {turn['content']}", learned=turn["role"] == "assistant")
        for turn in messages
    ]
