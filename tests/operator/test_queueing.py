"""What Kueue says of a job that waits, read from Workloads as Kueue 0.13 and 0.17 write them."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_operator.api import FINE_TUNE_JOB, PYTORCH_JOB, WORKLOADS, ApiError, JsonObject, Kind
from alidade_operator.observe import Sight, observe
from alidade_operator.reconcile.plan import Plan, TrainingJob
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.observation import QueueView, queue_view
from tests.operator.builders import CONFIG, INIT, NOW
from tests.operator.memory import MemoryApi, MemoryCluster, drive

NEW, OLD = WORKLOADS


def workload(*conditions: tuple[str, str, str, str], **fields: Any) -> JsonObject:
    """A Workload with these conditions: type, status, reason, message."""
    listed = [dict(zip(("type", "status", "reason", "message"), one, strict=True)) for one in conditions]
    checks = fields.pop("checks", [])
    return {"spec": {"active": True} | fields, "status": {"conditions": listed, "admissionChecks": checks}}


PENDING = workload(
    (
        "QuotaReserved",
        "False",
        "Pending",
        "couldn't assign flavors to pod set master: insufficient unused quota for nvidia.com/gpu in flavor a100, 8 "
        "more needed",
    )
)


@pytest.mark.parametrize(
    ("workloads", "reason", "message"),
    [
        ([], "NoWorkload", "Kueue has not taken it up; if that stays so, its integrations lack this kind"),
        ([workload()], "", ""),
        (
            [PENDING],
            "Pending",
            "couldn't assign flavors to pod set master: insufficient unused quota for nvidia.com/gpu in flavor a100, 8 "
            "more needed",
        ),
        (
            [workload(("QuotaReserved", "False", "Inadmissible", "LocalQueue team-b doesn't exist"))],
            "Inadmissible",
            "LocalQueue team-b doesn't exist",
        ),
        (
            [
                workload(
                    ("QuotaReserved", "False", "Pending", "Preempted to accommodate a workload of team-b"),
                    ("Evicted", "True", "Preempted", "Preempted to accommodate a workload of team-b"),
                )
            ],
            "Pending",
            "Preempted to accommodate a workload of team-b",
        ),
        ([workload(("Evicted", "True", "NodeFailures", "a node failed"))], "NodeFailures", "a node failed"),
        (
            [
                workload(
                    ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue a"),
                    checks=[
                        {"name": "quick", "state": "Ready", "message": ""},
                        {"name": "provision", "state": "Pending", "message": "waiting for 2 nodes"},
                    ],
                )
            ],
            "WaitingForChecks",
            "its quota is reserved; admission checks are not ready (provision: waiting for 2 nodes)",
        ),
        ([workload(active=False)], "Inactive", "its Workload is not active"),
    ],
)
def test_what_a_workload_says(workloads: list[JsonObject], reason: str, message: str) -> None:
    assert queue_view(workloads) == QueueView(reason, message)


class Kueue(MemoryApi):
    """An API with Kueue, or without. versions: of Workloads that it serves. refusal: the status of every listing."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: tuple[Kind, ...] = WORKLOADS
        self.refusal: int | None = None
        self.workloads: list[JsonObject] = [PENDING]
        self.asked: list[tuple[str, str]] = []

    async def list(self, kind: Kind, *, namespace: str | None, selector: str = "") -> tuple[list[JsonObject], str]:
        """A listing of Workloads; nothing else is listed here."""
        assert kind in WORKLOADS
        assert namespace == "team-a"
        self.asked.append((kind.version, selector))
        if self.refusal is not None:
            raise ApiError(self.refusal, "Refused", "no")
        if kind not in self.versions:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        return self.workloads, "1"


class Queued:
    """A FineTuneJob in a queue, whose PyTorchJob was made and is held back."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.api = Kueue()
        self.api.objects = self.cluster.api.objects
        spec = {
            "method": "pretrain",
            "model": INIT,
            "dataset": {"uri": "pvc://data/train.json"},
            "compute": {"queue": "team-a"},
        }
        self.body = self.cluster.put(FINE_TUNE_JOB, "demo", spec=spec)
        for child in self.plan().children:
            if child.kind is PYTORCH_JOB:
                self.made = self.cluster.put(PYTORCH_JOB, "demo-1", **_content(child.body))

    def plan(self) -> Plan:
        """The plan of the operator."""
        sight = Sight(self.cluster.cache, self.api, CONFIG, {})
        job = TrainingJob.parse(FINE_TUNE_JOB, self.body)
        return plan_training_job(job, drive(observe(job, sight)), CONFIG, NOW)

    def said(self) -> str:
        """What the status says of the queue."""
        made = self.plan()
        assert made.status is not None
        return next(one.message for one in made.status.conditions if one.type == "Suspended")


def _content(body: JsonObject) -> JsonObject:
    return {name: value for name, value in body.items() if name in ("spec", "metadata")}


@pytest.fixture
def queued() -> Queued:
    """See Queued."""
    return Queued()


def test_a_job_is_asked_after_once_it_waits_and_by_its_uid(queued: Queued) -> None:
    assert queued.said() == (
        "Queue team-a has not admitted PyTorchJob demo-1: couldn't assign flavors to pod set master: insufficient "
        "unused quota for nvidia.com/gpu in flavor a100, 8 more needed (Pending)."
    )
    assert queued.api.asked == [("v1beta2", f"kueue.x-k8s.io/job-uid={queued.made['metadata']['uid']}")]


def test_an_older_kueue_is_asked_in_its_version(queued: Queued) -> None:
    queued.api.versions = (OLD,)
    assert queued.said().endswith("8 more needed (Pending).")
    assert [version for version, _ in queued.api.asked] == ["v1beta2", "v1beta1"]


def test_a_cluster_without_kueue_is_said_to_be_one(queued: Queued) -> None:
    queued.api.versions = ()
    assert queued.said() == (
        "Queue team-a has not admitted PyTorchJob demo-1: the cluster has no Kueue; install it, or leave "
        "spec.compute.queue out and apply anew (KueueMissing)."
    )


def test_no_job_waits_for_the_right_to_read_why(queued: Queued) -> None:
    queued.api.refusal = 403
    assert queued.said() == "Queue team-a has not admitted PyTorchJob demo-1."


def test_trouble_of_the_api_is_no_answer(queued: Queued) -> None:
    queued.api.refusal = 500
    with pytest.raises(ApiError):
        queued.plan()


def test_what_kueue_changes_is_neither_undone_nor_asked_after(queued: Queued) -> None:
    """Kueue admits: it flips suspend, and merges a flavor's node selector and tolerations into the templates."""
    body = queued.cluster.api.objects[PYTORCH_JOB.kind, "demo-1"]
    body["spec"]["runPolicy"]["suspend"] = False
    template = body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    template["spec"]["nodeSelector"] = {"cloud.provider.com/accelerator": "a100"}
    template["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "master"
    body["metadata"].setdefault("annotations", {})["kueue.x-k8s.io/original-pod-sets-info"] = "[]"
    queued.cluster.api._write(body)
    queued.cluster.tell(PYTORCH_JOB, "demo-1")
    queued.api.asked.clear()
    made = queued.plan()
    assert (made.children, made.deletions) == ((), ())
    assert made.status is not None
    assert made.status.phase == "Starting"
    assert queued.api.asked == []
    body["spec"]["runPolicy"]["suspend"] = True
    queued.cluster.api._write(body)
    queued.cluster.tell(PYTORCH_JOB, "demo-1")
    evicted = queued.plan()
    assert (evicted.children, evicted.deletions) == ((), ())
    assert evicted.status is not None
    assert evicted.status.phase == "Queued"
