"""`alidade data show`: from a file or a manifest to what is printed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alidade_cli import data_command
from alidade_cli.main import alidade
from alidade_crds.preview import PreviewDocument, PreviewPiece, PreviewRecord, PreviewRequest

EXAMPLES = Path(__file__).parents[2] / "examples"
PAIR = {"input": "Capital of\nFrance?", "output": "Paris"}
REPORT: dict[str, Any] = {
    "sources": [{"uri": "pvc://a/b.json", "kept": 9, "records": 10, "shape": "conversation"}],
    "train": {
        "samples": 9, "sequences": 2, "tokens": 90, "answer_tokens": 30, "mean_sample": 10.0, "longest_sample": 12,
        "packing_efficiency": 0.9,
    },
    "validation": None,
    "packing": True,
    "warnings": ["1 record is odd."],
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[PreviewRequest, dict[str, str]]]:
    """What the trainer's package is asked, with the files of the ConfigMaps that it finds."""
    monkeypatch.setenv("ALIDADE_HOME", str(tmp_path / "home"))
    found: list[tuple[PreviewRequest, dict[str, str]]] = []
    pieces = [PreviewPiece(text="user\n", learned=False, ids=[1, 2]), PreviewPiece(text="Paris", learned=True, ids=[3])]

    def answer(request: PreviewRequest, volumes: Path) -> PreviewDocument:
        files = {str(path.relative_to(volumes)): path.read_text() for path in volumes.rglob("*/*") if path.is_file()}
        for link in volumes.iterdir():
            files |= {f"{link.name}/{path.name}": path.read_text() for path in link.iterdir() if path.is_file()}
        found.append((request, files))
        shown = [PreviewRecord(place="b.json, line 1", fault="longer than maxLength", pieces=pieces)]
        return PreviewDocument(shown=shown, data=REPORT)

    monkeypatch.setattr(data_command, "_asked", answer)
    return found


def show(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(alidade, ["data", "show", *words], input=text)


def test_records_and_counts_are_printed_with_what_is_learned_apart(asked: list[Any], tmp_path: Path) -> None:
    done = show("a.jsonl", "--model", "base", "--max-length", "64", "--limit", "10")
    assert done.exit_code == 0
    assert done.output.splitlines()[2:5] == [
        "b.json, line 1: 3 tokens, 1 of them learned; left out: longer than maxLength",
        "  read     user⏎",
        "  learned  Paris",
    ]
    assert "Counts of the first 10 records" in done.output
    assert "  pvc://a/b.json: 9 of 10 records are kept (conversation)" in done.output
    assert "9 samples in 2 sequences, 90 tokens, 30 of them learned" in done.output
    assert "  Warning: 1 record is odd." in done.output
    ((request, _),) = asked
    assert request.job.dataset.uri == (Path.cwd() / "a.jsonl").as_uri()
    assert request.job.model.uri == (Path.cwd() / "base").as_uri()
    assert (request.job.stage, request.job.dataset.max_length, request.limit) == ("sft", 64, 10)


def test_a_manifest_is_shown_as_its_job_would_read_it(asked: list[Any]) -> None:
    done = show(str(EXAMPLES / "kbqa" / "finetune.yaml"), "--configmap", f"kbqa-data={EXAMPLES / 'kbqa' / 'data'}")
    assert done.exit_code == 0, done.output
    ((request, _),) = asked
    assert request.job.dataset.uri == "configmap://kbqa-data/train.json"
    assert request.job.model.init is not None
    assert request.job.dataset.packing is False
    assert (request.job.owner.kind, request.job.owner.name) == ("FineTuneJob", "kbqa-sft")


def test_every_job_of_a_manifest_is_shown_with_its_configmaps_and_the_local_clusters_volumes(
    asked: list[Any], tmp_path: Path
) -> None:
    claim = tmp_path / "home" / "local" / "volumes" / "default" / "data"
    claim.mkdir(parents=True)
    (claim / "c.json").write_text("c")
    documents = [
        {"kind": "ConfigMap", "metadata": {"name": "d"}, "data": {"a.jsonl": json.dumps(PAIR)}},
        {"kind": "FineTuneJob", "metadata": {"name": "one"}, "spec": {
            "method": "pretrain", "model": {"uri": "hf://a/b"}, "dataset": {"uri": "pvc://data/c.json"}}},
        {"kind": "RewardModel", "metadata": {"name": "two"}, "spec": {
            "model": {"from": {"kind": "FineTuneJob", "name": "x"}}, "dataset": {"uri": "configmap://d/a.jsonl"}}},
        {"kind": "AlignmentRun", "metadata": {"name": "three"}, "spec": {"sft": {"template": {
            "model": {"uri": "hf://a/b"}, "dataset": {"uri": "configmap://d/a.jsonl"}}}}},
    ]  # fmt: skip
    text = "\n---\n".join(map(json.dumps, documents))
    done = show("-", "--model", "hf://org/other", text=text)
    assert done.exit_code == 0, done.output
    assert [(one.job.owner.name, one.job.stage) for one, _ in asked] == [
        ("one", "pretrain"), ("two", "reward"), ("three", "sft"),
    ]  # fmt: skip
    assert {one.job.model.uri for one, _ in asked} == {"hf://org/other"}
    assert asked[0][1]["data/c.json"] == "c"
    assert asked[0][1]["configmaps/d/a.jsonl"] == json.dumps(PAIR)


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["-"], "a: [", "- is not YAML: "),
        (["-"], "kind: ConfigMap", "- holds no FineTuneJob, RewardModel or AlignmentRun with an sft.template."),
        (["nothing.yaml"], None, "nothing.yaml cannot be read: No such file or directory."),
        (["a.json", "--configmap", "a=nowhere"], None, "--configmap is a=nowhere; write NAME=FOLDER"),
        (
            ["-"],
            '{kind: FineTuneJob, metadata: {name: a}, spec: {model: {uri: "hf://a/b"}, '
            'dataset: {uri: "pvc://a/b", x: 1}}}',
            "FineTuneJob a: spec.dataset.x: Extra inputs are not permitted (found 1).",
        ),
        (
            ["-"],
            "{kind: FineTuneJob, metadata: {name: a}, spec: {model: {from: {kind: RewardModel, name: m}}, "
            'dataset: {uri: "pvc://a/b"}}}',
            "FineTuneJob a: model.from names a RewardModel that only a cluster knows.",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(asked: list[Any], words: list[str], text: str | None, said: str) -> None:
    done = show(*words, text=text)
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert asked == []


def test_a_job_that_would_fail_ends_with_1(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_command, "_asked", lambda request, volumes: PreviewDocument(shown=[], failure="no."))
    done = show("a.jsonl")
    assert done.exit_code == 1
    assert "A job with this data would fail: no." in done.stderr


def test_a_file_is_shown_by_the_trainers_package(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(PAIR))
    done = show(str(tmp_path / "a.jsonl"))
    assert done.exit_code == 0, done.output
    assert "  read     user: Capital of⏎France?\n  learned  assistant: Paris\n" in done.output


def test_what_the_trainers_package_cannot_read_is_said_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "a warning\ndataset.uri is file:///b.jsonl, which does not exist.\n"
    failed = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(data_command.subprocess, "run", lambda *words, **how: failed)
    done = show("b.jsonl")
    assert (done.exit_code, done.stderr) == (1, "Error: dataset.uri is file:///b.jsonl, which does not exist.\n")


def test_without_the_trainers_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_command.importlib.util, "find_spec", lambda name: None)
    done = show("a.jsonl")
    assert done.exit_code == 1
    assert "the package alidade-trainer, which is not installed" in done.stderr
