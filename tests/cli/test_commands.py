"""What the commands print."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from alidade_cli import main as command_line
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
    assert json.loads(done.output.splitlines()[-1]) == DONE["status"]


@pytest.mark.parametrize("arguments", [["wait"], ["chat", "ftj/a", "--temperature", "warm"], ["fly"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(alidade, arguments).exit_code == 2


def test_an_unknown_kind_ends_with_1_and_a_sentence() -> None:
    done = CliRunner().invoke(alidade, ["wait", "pod/a"])
    assert done.exit_code == 1
    assert "'pod' is not a kind of Alidade" in done.output
