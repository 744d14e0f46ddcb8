"""Where a finished model lies on this machine."""

from pathlib import Path

import pytest

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster
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
