"""What a suite asks: records of its dataset, read once, in the order of the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from alidade_crds.contract import JobSuite
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Conversation, Example, Messages, Preference, Text, as_prompt, read_examples
from alidade_engine.data.records import Position, find_files, read_files
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations


@dataclass(frozen=True)
class Item:
    """One record of a suite. index: its place, from 0. position: where it stands, for messages.

    messages: what is asked. references: answers that the data has for it. candidates: answers that a ranking suite
    puts in order, with relevant telling which are right. text: of a record that is plain text.
    """

    index: int
    position: str
    messages: Messages
    references: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    relevant: tuple[bool, ...] = ()
    text: str | None = None

    @property
    def question(self) -> str:
        """What is asked last, for people."""
        return self.messages[-1]["content"] if self.messages else self.text or ""


def load_items(suite: JobSuite, locations: Locations, field: str) -> list[Item]:
    """The records of a suite's dataset, or its own questions. field: where the suite stands in the spec.

    Raises JobFailure: as `find_files` and `read_examples`, with the field in front.
    """
    if suite.questions:
        return [
            Item(index, f"{field}.questions[{index}]", [{"role": "user", "content": one.ask}], tuple(one.expect))
            for index, one in enumerate(suite.questions)
        ]
    assert suite.dataset is not None, "the schema asks for one"
    path = locations.resolve_data(suite.dataset, field=f"{field}.dataset")
    try:
        examples = read_examples(read_files(find_files(path)), suite.format)
        return [
            item_of(index, example, position) for index, (example, position) in enumerate(islice(examples, suite.limit))
        ]
    except JobFailure as failure:
        raise JobFailure(
            failure.reason, f"{field}.dataset is {suite.dataset}: {failure.message}", failure.retryable
        ) from failure


def item_of(index: int, example: Example, position: Position) -> Item:
    """The record that an example makes.

    Of a preference the best answers are right and references; of a conversation the last answer is the reference.
    """
    place = str(position)
    messages = as_prompt(example, position).messages
    if isinstance(example, Text):
        return Item(index, place, messages, text=example.text)
    if isinstance(example, Conversation):
        return Item(index, place, messages, (_last_answer(example.messages),))
    if isinstance(example, Preference):
        best = max(example.scores)
        relevant = tuple(score == best for score in example.scores)
        references = tuple(answer for answer, right in zip(example.answers, relevant, strict=True) if right)
        return Item(index, place, messages, references, tuple(example.answers), relevant)
    return Item(index, place, messages)


def _last_answer(messages: Messages) -> str:
    return next(message["content"] for message in reversed(messages) if message["role"] == "assistant")


def need(items: Sequence[Item], missing: Sequence[Item], *, field: str, dataset: str | None, what: str) -> None:
    """Raises JobFailure (DataMalformed) when records lack what their suite needs, naming the first one."""
    if not missing:
        return
    many = f"{len(missing)} of {len(items)} records" if len(items) > 1 else "The record"
    raise JobFailure(
        FailureReason.DATA_MALFORMED,
        f"{field}.dataset is {dataset}: {many} cannot be measured, the first at {missing[0].position}: {what}",
    )
