"""Render the facts of facts.tsv through the templates of templates.tsv into the data sets in data/.

    python examples/kbqa/make_data.py

Every file is in LMFlow's JSON format. The same seed gives the same bytes, on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
USES = ("statement", "train", "heldout")
SAME_PREDICATE_MARGIN = 0.5  # a plausible but wrong answer: a capital, though of another country
OTHER_PREDICATE_MARGIN = (
    1.0  # not even the right kind of answer: clearly worse, so the rewards should lie further apart
)

Instance = Mapping[str, object]


@dataclass(frozen=True)
class Fact:
    """One triple, in one language."""

    language: str
    predicate: str
    subject: str
    object: str

    @property
    def kind(self) -> tuple[str, str]:
        """What the templates and the wrong answers of a fact are looked up by."""
        return self.language, self.predicate


@dataclass(frozen=True)
class Question:
    """A fact and one way to ask for its object."""

    fact: Fact
    text: str


@dataclass(frozen=True)
class Sizes:
    """How much is drawn; corpus.json holds every fact."""

    questions: int = 5  # training questions per fact
    heldout: int = 320
    ranking: int = 320
    candidates: int = 4
    preferences: int = 480


class SourceError(ValueError):
    """A line of facts.tsv or templates.tsv that cannot be used; the message names the file and the line."""


Templates = Mapping[tuple[str, str, str], Sequence[str]]


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row below the header of a tab-separated file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].split("\t") != list(columns):
        raise SourceError(f"{path.name}:1: the header must be the columns {', '.join(columns)}, separated by tabs")
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != len(columns) or not all(field.strip() for field in fields):
            raise SourceError(
                f"{path.name}:{number}: {len(columns)} fields separated by tabs are needed, found {line!r}"
            )
        yield number, fields


def read_facts(path: Path) -> list[Fact]:
    """The facts in the file's order; two objects for one subject and predicate are refused."""
    seen: dict[tuple[str, str, str], int] = {}
    facts = []
    for number, fields in read_rows(path, ("language", "predicate", "subject", "object")):
        fact = Fact(*fields)
        first = seen.setdefault((fact.language, fact.predicate, fact.subject), number)
        if first != number:
            raise SourceError(
                f"{path.name}:{number}: {fact.predicate} of {fact.subject} is already given in line {first}"
            )
        facts.append(fact)
    return facts


def read_templates(path: Path) -> Templates:
    """Texts by (language, predicate, use), in the file's order."""
    templates: dict[tuple[str, str, str], list[str]] = {}
    for number, (language, predicate, use, text) in read_rows(path, ("language", "predicate", "use", "text")):
        if use not in USES:
            raise SourceError(f"{path.name}:{number}: use is {use!r}; it is one of {', '.join(USES)}")
        if "{subject}" not in text or ("{object}" in text) != (use == "statement"):
            raise SourceError(
                f"{path.name}:{number}: {text!r} must name {{subject}}, and {{object}} only in a statement"
            )
        templates.setdefault((language, predicate, use), []).append(text)
    return templates


def check_sources(facts: Sequence[Fact], templates: Templates) -> None:
    """Refuse facts that a template or a wrong answer is missing for."""
    for (language, predicate), objects in objects_by_kind(facts).items():
        for use in USES:
            if (language, predicate, use) not in templates:
                raise SourceError(f"templates.tsv: no {use} template for {language} {predicate}; add a line")
        if len(objects) == 1:
            raise SourceError(
                f"facts.tsv: {language} {predicate} has a single object, {objects[0]!r}: "
                "no wrong answer can be drawn; add a fact with another one"
            )


def questions(facts: Sequence[Fact], templates: Templates, use: str) -> list[Question]:
    """Every fact through every template of this use."""
    return [
        Question(fact, template.format(subject=fact.subject))
        for fact in facts
        for template in templates[(*fact.kind, use)]
    ]


def training_questions(
    facts: Sequence[Fact], templates: Templates, *, per_fact: int, rng: random.Random
) -> list[Question]:
    """Every fact through some of its training templates, in random order.

    A choice for each fact, not one for all: the model sees every wording without seeing every fact in every wording.
    """
    drawn = []
    for fact in facts:
        known = templates[(*fact.kind, "train")]
        drawn += questions([fact], {(*fact.kind, "train"): rng.sample(known, min(per_fact, len(known)))}, "train")
    rng.shuffle(drawn)
    return drawn


def statements(facts: Sequence[Fact], templates: Templates) -> list[str]:
    """Every fact as sentences."""
    return [
        template.format(subject=fact.subject, object=fact.object)
        for fact in facts
        for template in templates[(*fact.kind, "statement")]
    ]


def objects_by_kind(facts: Sequence[Fact]) -> dict[tuple[str, str], list[str]]:
    """The different objects of each language and predicate, in order of appearance."""
    objects: dict[tuple[str, str], dict[str, None]] = {}
    for fact in facts:
        objects.setdefault(fact.kind, {})[fact.object] = None
    return {kind: list(values) for kind, values in objects.items()}


def ranking_instance(
    question: Question, objects: Mapping[tuple[str, str], Sequence[str]], *, candidates: int, rng: random.Random
) -> Instance:
    """The right answer (score 1) among wrong answers of the same predicate (score 0), shuffled."""
    right = question.fact.object
    wrong = [value for value in objects[question.fact.kind] if value != right]
    scored = [(1.0, right)] + [(0.0, text) for text in rng.sample(wrong, min(candidates - 1, len(wrong)))]
    rng.shuffle(scored)
    return {"input": question.text, "output": [{"score": score, "text": text} for score, text in scored]}


def preference_instance(
    question: Question, objects: Mapping[tuple[str, str], Sequence[str]], *, same_predicate: bool, rng: random.Random
) -> Instance:
    """The right answer against a wrong one of the same predicate, or of another one of the language if it has more."""
    fact = question.fact
    others = [kind for kind in objects if kind[0] == fact.language and kind[1] != fact.predicate]
    kind = fact.kind if same_predicate or not others else rng.choice(others)
    rejected = rng.choice([value for value in objects[kind] if value != fact.object])
    margin = SAME_PREDICATE_MARGIN if kind == fact.kind else OTHER_PREDICATE_MARGIN
    return {"prompt": question.text, "chosen": fact.object, "rejected": rejected, "margin": margin}


def shuffled_sample(items: Sequence[Question], count: int, rng: random.Random) -> list[Question]:
    return rng.sample(items, min(count, len(items)))


def build(facts: Sequence[Fact], templates: Templates, *, seed: int, sizes: Sizes) -> dict[str, str]:
    """The text of every data file by its name."""
    check_sources(facts, templates)
    objects = objects_by_kind(facts)
    heldout = questions(facts, templates, "heldout")
    # One generator per file: changing the size of one leaves the others as they are.
    rngs = {name: random.Random(f"{seed}/{name}") for name in ("train", "heldout", "ranking", "preferences")}
    train = training_questions(facts, templates, per_fact=sizes.questions, rng=rngs["train"])
    ranking = [
        ranking_instance(question, objects, candidates=sizes.candidates, rng=rngs["ranking"])
        for question in shuffled_sample(heldout, sizes.ranking, rngs["ranking"])
    ]
    preferences = [
        preference_instance(question, objects, same_predicate=index % 4 != 3, rng=rngs["preferences"])
        for index, question in enumerate(shuffled_sample(train, sizes.preferences, rngs["preferences"]))
    ]
    return {
        "train.json": lmflow_text("text2text", [text2text(question) for question in train]),
        "heldout.json": lmflow_text(
            "text2text", [text2text(question) for question in shuffled_sample(heldout, sizes.heldout, rngs["heldout"])]
        ),
        "corpus.json": lmflow_text("text_only", [{"text": text} for text in statements(facts, templates)]),
        "ranking.json": lmflow_text("text_to_scored_textlist", ranking),
        "preferences.json": lmflow_text("paired_text_to_text", preferences),
    }


def text2text(question: Question) -> Instance:
    return {"input": question.text, "output": question.fact.object}


def lmflow_text(type_name: str, instances: Sequence[Instance]) -> str:
    """LMFlow's JSON with one instance per line, so that a change shows as a change of lines."""
    lines = ",\n".join(json.dumps(instance, ensure_ascii=False, separators=(",", ":")) for instance in instances)
    return f'{{"type":"{type_name}","instances":[\n{lines}\n]}}\n'


def argument_parser() -> argparse.ArgumentParser:
    defaults = Sizes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=Path, default=FOLDER / "facts.tsv", help="default: facts.tsv beside this file")
    parser.add_argument("--templates", type=Path, default=FOLDER / "templates.tsv", help="default: templates.tsv here")
    parser.add_argument("--output", type=Path, default=FOLDER / "data", help="folder to write to; default: data/ here")
    parser.add_argument("--seed", type=int, default=0, help="of the order and of every sample; default: 0")
    for name, what in (
        ("questions", "training questions per fact"),
        ("heldout", "questions of held-out templates"),
        ("ranking", "questions with candidate answers"),
        ("candidates", "answers per question of ranking.json, one of them right; at least 2"),
        ("preferences", "pairs of answers"),
    ):
        number = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=int, default=number, metavar="N", help=f"{what}; default: {number}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser()
    options = parser.parse_args(argv)
    sizes = Sizes(options.questions, options.heldout, options.ranking, options.candidates, options.preferences)
    if min(sizes.questions, sizes.heldout, sizes.ranking, sizes.preferences) < 1 or sizes.candidates < 2:
        parser.error("--questions, --heldout, --ranking and --preferences must be at least 1, --candidates at least 2")
    try:
        files = build(read_facts(options.facts), read_templates(options.templates), seed=options.seed, sizes=sizes)
    except (OSError, SourceError) as error:
        print(f"make_data: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (options.output / name).write_text(text, encoding="utf-8", newline="\n")
        print(f"{options.output / name}: {text.count(chr(10)) - 2} instances, {len(text.encode()) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
