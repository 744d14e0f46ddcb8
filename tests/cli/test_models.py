"""Where a finished model lies on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alidade_cli import main as command_line
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster
from alidade_cli.main import alidade
from alidade_cli.models import folder_of


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "volumes" / "team-a" / "alidade-workspace").mkdir(parents=True)
    return Cluster(tmp_path / "kubeconfig", "team-a")


def test_a_claim_of_the_local_cluster_is_a_folder_beside_its_kubeconfig(cluster: Cluster, tmp_path: Path) -> None:
    folder = folder_of(cluster, "pvc://alidade-workspace/finetunejobs/a/model")
    assert folder == tmp_path / "volumes/team-a/alidade-workspace/finetunejobs/a/model"


@pytest.mark.parametrize("uri", ["pvc://elsewhere/model", "s3://bucket/model"])
def test_a_model_that_is_elsewhere_is_said_to_be_elsewhere(cluster: Cluster, uri: str) -> None:
    with pytest.raises(CommandFailed, match=f"{uri} is not on this machine"):
        folder_of(cluster, uri)


def test_a_file_address_is_its_path(cluster: Cluster) -> None:
    assert folder_of(cluster, "file:///models/a") == Path("/models/a")


class Finished(Cluster):
    """A cluster whose every resource is a job that has ended."""

    def read(self, *_: object) -> dict[str, Any]:
        return {"status": {"reportUri": "pvc://alidade-workspace/a/report.html"}}


def test_a_report_as_json_has_all_of_the_result(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "volumes/team-a/alidade-workspace/a"
    folder.mkdir()
    (folder / "report.html").write_text("<html>")
    result = {"outcome": "succeeded", "metrics": {"eval_loss": 1.2345678}}
    (folder / "result.json").write_text(json.dumps(result))
    monkeypatch.setattr(command_line, "_connect", lambda _: Finished(cluster.kubeconfig, "team-a"))
    saved = tmp_path / "saved.html"
    done = CliRunner().invoke(alidade, ["report", "ftj/a", "-o", "json", "--save", str(saved)])
    assert json.loads(done.stdout) == {"report": str(saved), "result": result}
    assert saved.read_text() == "<html>"

    (folder / "result.json").unlink()
    with pytest.raises(CommandFailed, match="kubectl get finetunejobs a -o json has the status"):
        alidade(["report", "ftj/a", "-o", "json"], standalone_mode=False)
