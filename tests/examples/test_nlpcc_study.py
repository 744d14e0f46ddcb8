"""The data of the study on NLPCC-2016 KBQA, and its manifest."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from alidade_crds.alignmentrun import AlignmentRunSpec
from alidade_crds.evaluation import EvaluationSpec
from alidade_crds.jobs import FineTuneJobSpec, RewardModelSpec
from examples.nlpcc import study_data


def entry(number: int, predicate: str, answer: str, question: str) -> Any:
    return study_data.nlpcc.Entry(number, question, f"主题{number}", predicate, answer, answer)


def entries() -> list[Any]:
    found = [
        entry(number, predicate, f"{predicate}{number}", f"谁知道主题{number}的{predicate}呢？")
        for number in range(40)
        for predicate in ("作者", "语言")
    ]
    return [
        *found,
        entry(50, "密度", "3", "主题50的密度？"),
        entry(51, "作者", "太长太长太长太长太长太长", "主题51的作者？"),
    ]


def test_triples_are_taken_by_whole_predicates_with_enough_short_answers() -> None:
    taken = study_data.chosen(entries(), seed=0)
    assert {one.predicate for one in taken} == {"作者", "语言"}
    assert len(taken) == 80
    assert all(len(one.answer) <= study_data.LONGEST for one in taken)


def test_the_questions_that_are_measured_stand_in_no_training_file() -> None:
    taken = study_data.chosen(entries(), seed=0)
    as_a_template = taken[-1]
    asks = study_data.ASKED[0].format(subject=as_a_template.subject, predicate=as_a_template.predicate)
    taken[-1] = study_data.nlpcc.Entry(
        as_a_template.id, asks, as_a_template.subject, as_a_template.predicate, as_a_template.object, "x"
    )
    files = {name: json.loads(text) for name, text in study_data.data_files(taken, seed=0).items()}
    measured = {one["input"] for one in files["questions.json"]["instances"]}
    assert len(measured) == 39  # half of 80, without the one that is asked as a template asks
    for name in ("corpus.json", "demonstrations.json", "preferences.json"):
        shown = {one.get("text") or one["input"] for one in files[name]["instances"]}
        assert not measured & shown, name
    trained = {one["output"] for one in files["demonstrations.json"]["instances"]}
    assert {one["output"] for one in files["questions.json"]["instances"]} <= trained


SPECS = {
    "FineTuneJob": FineTuneJobSpec,
    "RewardModel": RewardModelSpec,
    "AlignmentRun": AlignmentRunSpec,
    "Evaluation": EvaluationSpec,
}


def test_the_manifest_is_valid_and_reads_the_files_that_are_made(tmp_path: Path) -> None:
    study_data.write_folder(study_data.data_files(study_data.chosen(entries(), seed=0), seed=0), tmp_path)
    kustomization = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())
    [generator] = kustomization["configMapGenerator"]
    assert sorted([*generator["files"], "kustomization.yaml"]) == sorted(path.name for path in tmp_path.iterdir())
    documents = list(yaml.safe_load_all(Path(study_data.FOLDER / "study.yaml").read_text(encoding="utf-8")))
    for document in documents:
        SPECS[document["kind"]].model_validate(document["spec"])
    named = set(re.findall(r"configmap://[^\"]+", json.dumps(documents)))
    assert named == {f"configmap://{generator['name']}/{file}" for file in generator["files"]}


def test_every_reference_of_the_manifest_is_in_it() -> None:
    documents = list(yaml.safe_load_all(Path(study_data.FOLDER / "study.yaml").read_text(encoding="utf-8")))
    there = {(document["kind"], document["metadata"]["name"]) for document in documents}
    sources = re.findall(r'"from": {"kind": "(\w+)", "name": "([-\w]+)"}', json.dumps(documents))
    assert sources
    assert set(sources) <= there
    runs = [document["spec"] for document in documents if document["kind"] == "AlignmentRun"]
    assert {("FineTuneJob", run["sft"]["ref"]["name"]) for run in runs} <= there
    assert {("RewardModel", run["rewardModels"][0]["ref"]["name"]) for run in runs} <= there
