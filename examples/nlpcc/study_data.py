"""Make the data of study.yaml from a file of the NLPCC-ICCPOL 2016 KBQA shared task.

    python examples/nlpcc/study_data.py test.txt --output nlpcc-data

A small model from nothing cannot know facts that it was never told, so some of the triples are told to it, as
statements (pretraining) and through questions made from templates (SFT, reward model, prompts); of half of them also
the question that a person asked is trained on. Measured is whether the other half's questions, in people's own words,
are answered: facts are known, wordings are new. Preferences set a triple's object against those of other triples.

The folder gets the files in LMFlow's JSON format, and a kustomization that puts them into the ConfigMap nlpcc-data. The
same file gives the same bytes.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "kbqa")]
import make_data as kbqa  # noqa: E402
import nlpcc  # noqa: E402  # the paths are set above

TRIPLES = 400
LONGEST = 10  # characters of a subject or object: longer ones are lists and sentences, which are no exact answers
FEWEST_OBJECTS = 4  # of a predicate, so that there are three wrong answers of the same one
COMPARISONS = 3  # questions of each triple whose answers are compared: as many in all as the example kbqa has
STATEMENTS = (
    "{subject}的{predicate}是{object}。",
    "{subject}，{predicate}：{object}。",
    "{subject}|{predicate}|{object}",
)
ASKED = (
    "{subject}的{predicate}是什么？",
    "请问{subject}的{predicate}？",
    "你知道{subject}的{predicate}吗？",
    "{subject}{predicate}？",
)
KUSTOMIZATION = """apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
configMapGenerator:
  - name: nlpcc-data
    files:
{files}
generatorOptions:
  # Manifests name the ConfigMap in URIs, which kustomize does not rewrite.
  disableNameSuffixHash: true
"""


def chosen(entries: Sequence[nlpcc.Entry], *, seed: int) -> list[nlpcc.Entry]:
    """About TRIPLES entries with short answers whose question names the subject: all of some predicates, shuffled."""
    by_predicate: dict[str, dict[str, nlpcc.Entry]] = {}
    for entry in entries:
        short = 0 < len(entry.subject) <= LONGEST and 0 < len(entry.answer) <= LONGEST
        if short and entry.answer == entry.object and entry.subject in entry.question:
            by_predicate.setdefault(entry.predicate, {}).setdefault(entry.subject, entry)
    groups = [list(group.values()) for predicate, group in sorted(by_predicate.items()) if predicate]
    rng = random.Random(seed)
    rng.shuffle(groups)
    taken: list[nlpcc.Entry] = []
    for group in groups:
        if len({entry.object for entry in group}) >= FEWEST_OBJECTS and len(taken) < TRIPLES:
            taken += group
    rng.shuffle(taken)
    return taken


def fact_of(entry: nlpcc.Entry) -> kbqa.Fact:
    """The triple as examples/kbqa has it."""
    return kbqa.Fact("zh", entry.predicate, entry.subject, entry.object)


def data_files(entries: Sequence[nlpcc.Entry], *, seed: int) -> dict[str, str]:
    """The files that the example's manifests name, by their names."""
    rng = random.Random(seed)
    told, held_out = entries[: len(entries) // 2], entries[len(entries) // 2 :]
    trained = [
        kbqa.Question(fact_of(entry), text.format(subject=entry.subject, predicate=entry.predicate))
        for entry in entries
        for text in ASKED
    ]
    trained += [kbqa.Question(fact_of(entry), entry.question) for entry in told]
    known = {question.text for question in trained}  # some people asked just as a template does
    asked = [kbqa.Question(fact_of(one), one.question) for one in held_out if one.question not in known]
    rng.shuffle(trained)
    objects = kbqa.objects_by_kind([fact_of(entry) for entry in entries])
    corpus = [
        text.format(subject=entry.subject, predicate=entry.predicate, object=entry.object)
        for entry in entries
        for text in STATEMENTS
    ]
    corpus += [entry.question for entry in told]
    rng.shuffle(corpus)
    wrong = kbqa.Wrong()
    compared = kbqa.some_of_each(trained, COMPARISONS, rng)
    preferences = [kbqa.preference_instance(question, objects, wrong, rng) for question in compared]
    ranking = [kbqa.ranking_instance(question, objects, candidates=4, rng=rng) for question in asked]
    text2text = [[kbqa.text2text(question) for question in some] for some in (trained, asked)]
    return {
        "corpus.json": kbqa.lmflow_text("text_only", [{"text": text} for text in corpus]),
        "demonstrations.json": kbqa.lmflow_text("text2text", text2text[0]),
        "questions.json": kbqa.lmflow_text("text2text", text2text[1]),
        "preferences.json": kbqa.lmflow_text("text_to_scored_textlist", preferences),
        "ranking.json": kbqa.lmflow_text("text_to_scored_textlist", ranking),
    }


def write_folder(files: dict[str, str], folder: Path) -> None:
    """The files, and the kustomization that makes a ConfigMap of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    listed = "\n".join(f"      - {name}" for name in files)
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION.format(files=listed), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a file of the shared task, for example test.txt")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    options = parser.parse_args(argv)
    try:
        entries = chosen(list(nlpcc.read_file(options.source)), seed=0)
    except (OSError, UnicodeDecodeError, nlpcc.FormatError) as error:
        print(f"study_data: {options.source}: {error}", file=sys.stderr)
        return 1
    files = data_files(entries, seed=0)
    write_folder(files, options.output)
    print(f"{options.output}: {len(entries)} triples; kubectl apply --server-side -k {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
