"""What the commands print."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alidade_cli import doctor_command
from alidade_cli import main as command_line
from alidade_cli.doctor.findings import Finding
from alidade_cli.main import alidade

URI = "pvc://alidade-workspace/finetunejobs/a-job-with-quite-a-long-name-0123abcd/model"
DONE: dict[str, Any] = {
    "status": {
        "attempts": 2,
        "model": {"uri": URI, "digest": "sha256:" + "0" * 64},
        "metrics": {"train_loss": 0.123456789},
        "conditions": [{"type": "Succeeded", "status": "True", "message": ""}],
    }
}


class Finished:
    def read(self, kind: object, name: str) -> dict[str, Any]:
        return DONE


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "_connect", lambda namespace: Finished())


def test_waiting_ends_with_where_the_model_is_uncut() -> None:
    done = CliRunner().invoke(alidade, ["wait", "ftj/a"])
    assert done.exit_code == 0
    assert URI in done.output
    assert "train_loss         0.123457" in done.output


def test_waiting_can_end_with_the_status_for_programs() -> None:
    done = CliRunner().invoke(alidade, ["wait", "ftj/a", "-o", "json"])
    assert json.loads(done.stdout) == DONE["status"]
    assert "FineTuneJob a" in done.stderr


def test_ctrl_c_ends_with_130_and_no_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(namespace: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_connect", interrupted)
    monkeypatch.setattr("sys.argv", ["alidade", "wait", "ftj/a"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["wait"], 2, "Missing argument 'TARGET'"),
        (["wait", "pod/a"], 1, "Error: 'pod' is not a kind"),
        (["env"], 0, ""),
    ],
)
def test_the_program_ends_with_the_code_of_what_happened(
    arguments: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["alidade", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert (ended.value.code or 0) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_can_be_turned_off(
    environment: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_command, "survey", lambda cluster: None)
    monkeypatch.setattr(doctor_command.local_cluster, "connect", lambda namespace: None)
    monkeypatch.setattr(doctor_command, "findings", lambda found: [Finding("kueue", "missing", "It is not there.", "")])
    done = CliRunner(env={"NO_COLOR": None} | environment).invoke(alidade, ["doctor"], color=True)
    assert ("\x1b[" in done.stdout) == is_coloured
    assert "It is not there." in done.stdout


@pytest.mark.parametrize("arguments", [["wait"], ["chat", "ftj/a", "--temperature", "warm"], ["fly"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(alidade, arguments).exit_code == 2


def test_an_unknown_kind_ends_with_1_and_a_sentence() -> None:
    done = CliRunner().invoke(alidade, ["wait", "pod/a"])
    assert done.exit_code == 1
    assert "'pod' is not a kind of Alidade" in done.output


def test_a_local_cluster_is_named_by_its_name_or_its_folder(tmp_path: Path) -> None:
    home = {"ALIDADE_HOME": str(tmp_path)}
    assert CliRunner().invoke(alidade, ["env"], env=home).output == f"export KUBECONFIG={tmp_path}/local/kubeconfig\n"
    named = CliRunner().invoke(alidade, ["env", "--name", "other"], env=home)
    assert named.output == f"export KUBECONFIG={tmp_path}/other/kubeconfig\n"
    placed = CliRunner().invoke(alidade, ["env", "--data-dir", str(tmp_path / "x")], env=home)
    assert placed.output == f"export KUBECONFIG={tmp_path}/x/kubeconfig\n"
    wrong = CliRunner().invoke(alidade, ["env", "--name", "../x"], env=home)
    assert (wrong.exit_code, "the name of the cluster is '../x'" in wrong.output) == (1, True)


def test_the_options_of_up_reach_the_local_cluster(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = ["--reset", "--no-operator", "--port", "0", "--data-dir", str(tmp_path)]
    refused = CliRunner().invoke(alidade, ["up", *given])
    assert (refused.exit_code, "not those of a cluster" in refused.output) == (1, True)
    stopped = CliRunner().invoke(alidade, ["status", "--data-dir", str(tmp_path / "none"), "-o", "json"])
    assert (stopped.exit_code, json.loads(stopped.output)["running"]) == (1, False)
