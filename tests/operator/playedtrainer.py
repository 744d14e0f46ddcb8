"""The test as Kubeflow Trainer 2.3 and the controllers of JobSets and Jobs: what they would do to a TrainJob."""

from __future__ import annotations

from typing import Any

from alidade_operator.api import JOB, TRAIN_JOB, TRAINING_RUNTIME, Kind
from tests.operator.played import Played, now, send

Body = dict[str, Any]


def pod_template(runtime: Body, train_job: Body) -> Body:
    """The pod template that Trainer makes of a TrainJob and its runtime: the runtime's, told of its peers."""
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    template: Body = node["template"]["spec"]["template"]
    name, trainer = train_job["metadata"]["name"], train_job["spec"]["trainer"]
    told = {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
        "PET_MASTER_PORT": "29500",
    }
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    peers: list[Body] = [{"name": key, "value": value} for key, value in told.items()]
    peers.append({"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": index}}})
    spec = template["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "node", "Trainer tells its peers to the container of that name"
    told_container = container | {
        "env": [*container["env"], *peers],
        "ports": [*container["ports"], {"containerPort": 29500}],
    }
    return template | {"spec": spec | {"containers": [told_container]}}


class PlayedTrainer(Played):
    """One namespace, where a training job is a TrainJob."""

    training_kind = TRAIN_JOB
    container = "node"

    def pod_name(self, job: str) -> str:
        """As `Played.pod_name`: of index 0 of the one Job of the JobSet."""
        return f"{job}-node-0-0-abcde"

    async def first_pod(self, job: Body) -> Body:
        """As `Played.first_pod`: its controller is the JobSet's Job, which the operator does not see."""
        name = job["metadata"]["name"]
        runtime = await self.api.get(TRAINING_RUNTIME, self.namespace, job["spec"]["runtimeRef"]["name"])
        template = pod_template(runtime, job)
        owner = await self._job(job, template)
        labels = template["metadata"]["labels"] | {
            "jobset.sigs.k8s.io/jobset-name": name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-name": f"{name}-node-0",
            "batch.kubernetes.io/job-completion-index": "0",
        }
        return {"name": self.pod_name(name), "labels": labels, "ownerReferences": [owner]}

    async def _job(self, train_job: Body, template: Body) -> Body:
        """Reference to the Job, which is the TrainJob's own here: between them stands a JobSet, of the same name."""
        name = f"{train_job['metadata']['name']}-node-0"
        owner = reference(TRAIN_JOB, train_job)
        body = {
            "apiVersion": JOB.api_version,
            "kind": JOB.kind,
            "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"suspend": True, "template": template},
        }
        found, _ = await self.api.list(JOB, namespace=self.namespace)
        known = next((one for one in found if one["metadata"]["name"] == name), None)
        return reference(JOB, known or await self.api.create(JOB, self.namespace, body))

    async def job_status(self, name: str, *true: str) -> None:
        """As `Played.job_status`: in a TrainJob's words."""
        state = true[-1] if true else ""
        count = dict.fromkeys(("ready", "succeeded", "failed", "active", "suspended"), 0)
        count |= {
            "Running": {"ready": 1, "active": 1},
            "Succeeded": {"ready": 1, "succeeded": 1},
            "Failed": {"failed": 1},
            "Suspended": {"suspended": 1},
        }.get(state, {"active": 1})
        told = {
            "Succeeded": condition("Complete", "True", "AllJobsCompleted", "jobset completed successfully"),
            "Failed": condition("Failed", "True", "FailedJobs", "jobset failed due to one or more job failures"),
            "Suspended": condition("Suspended", "True", "Suspended", "TrainJob is suspended"),
        }
        known = (await self.api.get(TRAIN_JOB, self.namespace, name)).get("status") or {}
        conditions = {one["type"]: one for one in known.get("conditions") or []}
        if "Suspended" in conditions and state != "Suspended":
            conditions["Suspended"] = condition("Suspended", "False", "Resumed", "TrainJob is resumed")
        if state in told:
            conditions[told[state]["type"]] = told[state]
        status = {"conditions": list(conditions.values()), "jobsStatus": [{"name": "node", **count}]}
        await self.write_status(TRAIN_JOB, name, status)

    async def admit(self, name: str, **pods: Any) -> None:
        """Kueue lets a TrainJob in: it patches the runtime's pods first, and then lets go."""
        jobs = [{"name": "node", "template": {"spec": {"template": {"spec": pods}}}}]
        patch = {
            "manager": "kueue.x-k8s.io/manager",
            "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}},
        }
        await self._change(name, {"runtimePatches": [patch]})
        await self._change(name, {"suspend": False})

    async def evict(self, name: str) -> None:
        """Kueue takes the room of a TrainJob back."""
        await self._change(name, {"suspend": True})

    async def _change(self, name: str, spec: Body) -> None:
        path = TRAIN_JOB.path(self.namespace, name)
        merge_patch = "application/merge-patch+json"
        await send(self.api, "PATCH", TRAIN_JOB, path, {"spec": spec}, content_type=merge_patch)


def reference(kind: Kind, body: Body) -> Body:
    """Makes the garbage collector delete something with its controller."""
    metadata = body["metadata"]
    told = {"apiVersion": kind.api_version, "kind": kind.kind, "name": metadata["name"], "uid": metadata["uid"]}
    return told | {"controller": True}


def condition(kind: str, status: str, reason: str, message: str) -> Body:
    """A condition that has just come about."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()}
