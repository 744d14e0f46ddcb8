"""Whose log `alidade logs` prints."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from alidade_cli.errors import CommandFailed
from alidade_cli.jobs import print_logs
from alidade_cli.kube import Cluster, kind_named
from alidade_crds.crd import Kind


class Pods(Cluster):
    """A cluster with resources and one pod for each selector."""

    resources: dict[str, dict[str, Any]]
    pods_by_selector: dict[str, str]

    def read(self, kind: Kind, name: str) -> dict[str, Any]:
        return self.resources[f"{kind.kind}/{name}"]

    def pods(self, selector: str) -> list[Any]:
        name = self.pods_by_selector.get(selector)
        if name is None:
            return []
        container = SimpleNamespace(name="main")
        metadata = SimpleNamespace(name=name, creation_timestamp=0)
        return [SimpleNamespace(metadata=metadata, spec=SimpleNamespace(containers=[container]))]

    def log_lines(self, pod: str, container: str, *, follow: bool) -> Iterator[str]:
        yield f"{pod} {container} {follow}"


def cluster_with(pods: dict[str, str], **resources: dict[str, Any]) -> Pods:
    from pathlib import Path

    cluster = Pods(Path("kubeconfig"), "default")
    object.__setattr__(cluster, "pods_by_selector", pods)
    object.__setattr__(cluster, "resources", {name.replace("_", "/"): one for name, one in resources.items()})
    return cluster


MASTER = "training.kubeflow.org/job-name=a-1,training.kubeflow.org/job-role=master"
FIRST = "batch.kubernetes.io/job-name=a-1,batch.kubernetes.io/job-completion-index=0"
NODE = "jobset.sigs.k8s.io/jobset-name=b-1,batch.kubernetes.io/job-completion-index=0"
TRAINING = {"status": {"jobRef": {"kind": "PyTorchJob", "name": "a-1"}}}
EVALUATION = {"status": {"jobRef": {"kind": "Job", "name": "a-1"}}}
RUN = {"status": {"stage": "evaluation", "stages": [{"name": "evaluation", "kind": "Evaluation", "ref": "a"}]}}


def test_the_log_of_a_trainjob_is_that_of_its_first_node(capsys: pytest.CaptureFixture[str]) -> None:
    job = {"status": {"jobRef": {"kind": "TrainJob", "name": "b-1"}}}
    print_logs(cluster_with({NODE: "the-node"}, FineTuneJob_b=job), kind_named("FineTuneJob"), "b", follow=True)
    assert "the-node" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "pod"), [("FineTuneJob", "the-master"), ("Evaluation", "the-first"), ("AlignmentRun", "the-first")]
)
def test_the_log_is_that_of_the_jobs_first_pod(kind: str, pod: str, capsys: pytest.CaptureFixture[str]) -> None:
    pods = {MASTER: "the-master", FIRST: "the-first"}
    cluster = cluster_with(pods, FineTuneJob_a=TRAINING, Evaluation_a=EVALUATION, AlignmentRun_a=RUN)

    print_logs(cluster, kind_named(kind), "a", follow=True)

    assert capsys.readouterr().out == f"{pod} main True\n"


def test_a_log_that_went_with_its_pods_is_said_to_be_gone() -> None:
    with pytest.raises(CommandFailed, match="the pods of Evaluation a are gone"):
        print_logs(cluster_with({}, Evaluation_a=EVALUATION), kind_named("Evaluation"), "a", follow=False)


def test_a_job_that_was_not_launched_has_no_log_and_the_reason_is_said() -> None:
    cluster = cluster_with({}, Evaluation_a={"status": {"phase": "Pending"}})
    with pytest.raises(CommandFailed, match="has not been launched; it is Pending"):
        print_logs(cluster, kind_named("Evaluation"), "a", follow=False)
