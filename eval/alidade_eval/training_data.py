"""What models were trained on, as texts that a test prompt could be."""

from collections.abc import Iterator, Sequence

from alidade_engine.data.formats import Conversation, Example, Preference, Prompt, Text, read_examples
from alidade_engine.data.records import find_files, read_files
from alidade_engine.sources import Locations


def training_texts(uris: Sequence[str], locations: Locations) -> Iterator[tuple[str, str]]:
    """Every text of the files at the addresses, with its place, one at a time.

    Raises JobFailure for an address or a record that cannot be read.
    """
    for place, uri in enumerate(uris):
        path = locations.resolve_data(uri, field=f"spec.leakCheck.trainingData[{place}]")
        for example, position in read_examples(read_files(find_files(path))):
            yield from ((text, f"{uri}: {position}") for text in texts_of(example))


def texts_of(example: Example) -> list[str]:
    """Of plain text all of it, else what the user says: a prompt whose answer was learned has leaked, an answer that
    is also another question's has not."""
    match example:
        case Text(text):
            return [text]
        case Conversation(messages) | Prompt(messages) | Preference(prompt=messages):
            return [message["content"] for message in messages if message["role"] == "user"]
