"""Render the facts of facts.tsv through the templates of templates.tsv into the data sets in data/.

    python examples/kbqa/make_data.py

train.json and heldout.json ask for every fact. The other files are those of the chain from pretraining to alignment and
keep to a part of the facts, the same in each: as many as a reward model of this size learns to judge in a minute.
Questions of use `heldout` are in heldout.json, questions.json and ranking.json alone.

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
SUBSET_SEED = "chain"  # not --seed: another seed asks for the same facts in other words
FEWEST_OF_KIND = 3  # facts of each language and predicate in the chain, so that there are wrong answers to draw
GARBLING_TRIES = 20  # two short names, such as chemical symbols, may allow no mixture that is neither of them

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
    """How much is drawn."""

    questions: int = 5  # training questions per fact
    heldout: int = 320  # held-out questions in each of heldout.json, questions.json and ranking.json
    facts: int = 300  # of the chain, about
    comparisons: int = 4  # training questions per fact whose answers are compared
    candidates: int = 4  # answers per question of ranking.json


@dataclass(frozen=True)
class Wrong:
    """Wrong answers beside the right one, in preferences.json.

    A reward model that has only seen whole names of the right kind finds other names and halves of names no worse than
    the right answer, and a policy that samples freely draws them: it needs all three.
    """

    same_predicate: int = 3  # plausible: a capital, though of another country
    other_predicate: int = 1  # not even the right kind of answer
    garbled: int = 2  # the right answer and another one, mixed


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
    scored = [(1, right)] + [(0, text) for text in rng.sample(wrong, min(candidates - 1, len(wrong)))]
    rng.shuffle(scored)
    return {"input": question.text, "output": [{"score": score, "text": text} for score, text in scored]}


def garbled(right: str, other: str, rng: random.Random) -> str:
    """The beginning of one name with the end of the other, neither of them whole; both, where nothing else is found."""
    for _ in range(GARBLING_TRIES):
        first, second = (right, other) if rng.random() < 0.5 else (other, right)
        mixed = (first[: rng.randint(1, len(first))] + second[rng.randint(0, len(second)) :]).strip()
        if mixed not in ("", right, other):
            return mixed
    return right + other


def preference_instance(
    question: Question, objects: Mapping[tuple[str, str], Sequence[str]], wrong: Wrong, rng: random.Random
) -> Instance:
    """The right answer (score 1) among wrong ones of three kinds (score 0), shuffled; all different."""
    fact = question.fact
    same = [value for value in objects[fact.kind] if value != fact.object]
    others = [kind for kind in objects if kind != fact.kind]
    drawn = rng.sample(same, min(wrong.same_predicate, len(same)))
    drawn += [rng.choice(objects[rng.choice(others)]) for _ in range(wrong.other_predicate if others else 0)]
    drawn += [garbled(fact.object, rng.choice(same), rng) for _ in range(wrong.garbled)]
    scored = [(1, fact.object)] + [(0, text) for text in dict.fromkeys(drawn) if text != fact.object]
    rng.shuffle(scored)
    return {"input": question.text, "output": [{"score": score, "text": text} for score, text in scored]}


def chain_facts(facts: Sequence[Fact], count: int) -> list[Fact]:
    """About so many of the facts, of every language and predicate its share, in the file's order."""
    rng = random.Random(SUBSET_SEED)
    by_kind: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        by_kind.setdefault(fact.kind, []).append(fact)
    chosen: set[Fact] = set()
    for of_kind in by_kind.values():
        share = max(FEWEST_OF_KIND, round(len(of_kind) * count / len(facts)))
        chosen.update(rng.sample(of_kind, min(share, len(of_kind))))
    return [fact for fact in facts if fact in chosen]


def some_of_each(asked: Sequence[Question], per_fact: int, rng: random.Random) -> list[Question]:
    """At most so many questions about each fact, shuffled."""
    by_fact: dict[Fact, list[Question]] = {}
    for question in asked:
        by_fact.setdefault(question.fact, []).append(question)
    drawn = [one for questions in by_fact.values() for one in rng.sample(questions, min(per_fact, len(questions)))]
    rng.shuffle(drawn)
    return drawn


def shuffled_sample(items: Sequence[Question], count: int, rng: random.Random) -> list[Question]:
    return rng.sample(items, min(count, len(items)))


def build(facts: Sequence[Fact], templates: Templates, *, seed: int, sizes: Sizes) -> dict[str, str]:
    """The text of every data file by its name."""
    check_sources(facts, templates)
    train = training_questions(facts, templates, per_fact=sizes.questions, rng=generator(seed, "train"))
    heldout = questions(facts, templates, "heldout")
    asked = shuffled_sample(heldout, sizes.heldout, generator(seed, "heldout"))
    chain = frozenset(chain_facts(facts, sizes.facts))
    return {
        "train.json": lmflow_text("text2text", [text2text(question) for question in train]),
        "heldout.json": lmflow_text("text2text", [text2text(question) for question in asked]),
        **chain_files(
            [fact for fact in facts if fact in chain],
            templates,
            trained=[question for question in train if question.fact in chain],
            heldout=[question for question in heldout if question.fact in chain],
            seed=seed,
            sizes=sizes,
        ),
    }


def chain_files(
    facts: Sequence[Fact],
    templates: Templates,
    *,
    trained: Sequence[Question],
    heldout: Sequence[Question],
    seed: int,
    sizes: Sizes,
) -> dict[str, str]:
    """The text of the files of pretraining, SFT, reward model and alignment by their names."""
    objects = objects_by_kind(facts)
    # One generator per file: changing the size of one leaves the others as they are.
    rngs = {name: generator(seed, name) for name in ("corpus", "questions", "ranking", "preferences")}
    # A question of each fact without its answer: the tokenizer is trained on the corpus and has to know their words.
    corpus = statements(facts, templates) + [one.text for one in some_of_each(trained, 1, rngs["corpus"])]
    rngs["corpus"].shuffle(corpus)
    ranking = [
        ranking_instance(question, objects, candidates=sizes.candidates, rng=rngs["ranking"])
        for question in shuffled_sample(heldout, sizes.heldout, rngs["ranking"])
    ]
    preferences = [
        preference_instance(question, objects, Wrong(), rngs["preferences"])
        for question in some_of_each(trained, sizes.comparisons, rngs["preferences"])
    ]
    asked = shuffled_sample(heldout, sizes.heldout, rngs["questions"])
    return {
        "corpus.json": lmflow_text("text_only", [{"text": text} for text in corpus]),
        "demonstrations.json": lmflow_text("text2text", [text2text(question) for question in trained]),
        "preferences.json": lmflow_text("text_to_scored_textlist", preferences),
        "questions.json": lmflow_text("text2text", [text2text(question) for question in asked]),
        "ranking.json": lmflow_text("text_to_scored_textlist", ranking),
    }


def generator(seed: int, name: str) -> random.Random:
    """The random numbers of one file."""
    return random.Random(f"{seed}/{name}")


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
        ("heldout", "questions in heldout.json, questions.json and ranking.json each"),
        ("facts-of-chain", "facts in the files of the chain, about"),
        ("comparisons", "training questions per fact of the chain whose answers are compared"),
        ("candidates", "answers per question of ranking.json, one of them right; at least 2"),
    ):
        number = getattr(defaults, name.removesuffix("-of-chain"))
        parser.add_argument(f"--{name}", type=int, default=number, metavar="N", help=f"{what}; default: {number}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser()
    options = parser.parse_args(argv)
    sizes = Sizes(options.questions, options.heldout, options.facts_of_chain, options.comparisons, options.candidates)
    if min(sizes.questions, sizes.heldout, sizes.facts, sizes.comparisons) < 1 or sizes.candidates < 2:
        parser.error(
            "--questions, --heldout, --facts-of-chain and --comparisons must be at least 1, --candidates at least 2"
        )
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
