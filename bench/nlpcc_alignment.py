"""The chain of examples/kbqa on questions that people asked: NLPCC-ICCPOL 2016 KBQA, on a local cluster of its own.

    python bench/nlpcc_alignment.py --data ../shared/data/nlpcc2016_kbqa/train.txt

A small model from nothing cannot know facts that it was never told, so some of the triples are told to it, as
statements (pretraining) and through questions made from templates (SFT, reward model, prompts); of half of them also
the question that a person asked is trained on. Measured is whether the other half's questions, in people's own words,
are answered: facts are known, wordings are new. Preferences set a triple's object against those of other triples.
Writes the table to bench/results/nlpcc_alignment.json.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "kbqa")]
import make_data  # noqa: E402  # the paths are set above
import nlpcc  # noqa: E402

from bench.kbqa_alignment import RUNS, Chain, benchmark, local_cluster, report  # noqa: E402

CLUSTER = "bench-nlpcc-alignment"
TRIPLES = 400
LONGEST = 10  # characters of a subject or object: longer ones are lists and sentences, which are no exact answers
FEWEST_OBJECTS = 4  # of a predicate, so that there are three wrong answers of the same one
COMPARISONS = 3  # questions of each triple whose answers are compared: as many in all as the example has
DATA = "configmap://kbqa-data/"
FOLDER = "nlpcc-alignment"  # on the workspace volume: the data is larger than a ConfigMap may be
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


def fact_of(entry: nlpcc.Entry) -> make_data.Fact:
    """The triple as examples/kbqa has it."""
    return make_data.Fact("zh", entry.predicate, entry.subject, entry.object)


def data_files(entries: Sequence[nlpcc.Entry], *, seed: int) -> dict[str, str]:
    """The files that the example's manifests name, by their names."""
    rng = random.Random(seed)
    told, held_out = entries[: len(entries) // 2], entries[len(entries) // 2 :]
    trained = [
        make_data.Question(fact_of(entry), text.format(subject=entry.subject, predicate=entry.predicate))
        for entry in entries
        for text in ASKED
    ]
    trained += [make_data.Question(fact_of(entry), entry.question) for entry in told]
    known = {question.text for question in trained}  # some people asked just as a template does
    asked = [make_data.Question(fact_of(one), one.question) for one in held_out if one.question not in known]
    rng.shuffle(trained)
    objects = make_data.objects_by_kind([fact_of(entry) for entry in entries])
    corpus = [
        text.format(subject=entry.subject, predicate=entry.predicate, object=entry.object)
        for entry in entries
        for text in STATEMENTS
    ]
    corpus += [entry.question for entry in told]
    rng.shuffle(corpus)
    wrong = make_data.Wrong()
    compared = make_data.some_of_each(trained, COMPARISONS, rng)
    preferences = [make_data.preference_instance(question, objects, wrong, rng) for question in compared]
    ranking = [make_data.ranking_instance(question, objects, candidates=4, rng=rng) for question in asked]
    text2text = [[make_data.text2text(question) for question in some] for some in (trained, asked)]
    return {
        "corpus.json": make_data.lmflow_text("text_only", [{"text": text} for text in corpus]),
        "demonstrations.json": make_data.lmflow_text("text2text", text2text[0]),
        "questions.json": make_data.lmflow_text("text2text", text2text[1]),
        "preferences.json": make_data.lmflow_text("text_to_scored_textlist", preferences),
        "ranking.json": make_data.lmflow_text("text_to_scored_textlist", ranking),
    }


def on_volume(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest of the example that reads this benchmark's files, with room for more characters."""
    text = json.dumps(document, ensure_ascii=False).replace(DATA, f"pvc://alidade-workspace/{FOLDER}/")
    moved: dict[str, Any] = json.loads(text)
    init = moved["spec"].get("model", {}).get("init")
    if init:
        init["vocabSize"] = 4096
    return moved


def main(argv: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="The chain of examples/kbqa on NLPCC-2016 KBQA.")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/nlpcc2016_kbqa/train.txt")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", default=["RAFT", "PPO"], choices=list(RUNS))
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, with its models")
    options = parser.parse_args(argv)
    if not options.data.is_file():
        print(f"{options.data} is not there; --data names the shared task's train.txt", file=sys.stderr)
        return 2
    entries = chosen(list(nlpcc.read_file(options.data)), seed=0)
    files = data_files(entries, seed=0)
    pairs = [(one["input"], one["output"]) for one in json.loads(files["questions.json"])["instances"]]
    example = Chain.of_example(options.runs)
    chain = Chain(on_volume(example.pretrain), {name: on_volume(one) for name, one in example.runs.items()})
    with local_cluster(CLUSTER, keep=options.keep) as volumes:
        folder = volumes / "alidade-workspace" / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        result = benchmark(chain, options.seeds, pairs, volumes)
    report({"triples": len(entries), **result}, "nlpcc_alignment.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
