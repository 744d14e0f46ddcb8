"""The test as training operator and kubelet: it writes what they would write, and reads what came of it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientTimeout, web

from alidade_crds.contract import ResultDocument
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    DEPLOYMENT,
    EVENT,
    FINE_TUNE_JOB,
    JOB,
    PARENT_KINDS,
    POD,
    PYTORCH_JOB,
    Api,
    ApiError,
    Connection,
    Kind,
)

ROOT = Path(__file__).resolve().parents[2]
CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace")
_addresses = itertools.count(1)


def connection(kubeconfig: Path) -> Connection:
    """The way to the API server of a kubeconfig that holds a token and a CA."""
    content = yaml.safe_load(kubeconfig.read_text())
    cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
    if "certificate-authority-data" in cluster:
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    else:
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return Connection(cluster["server"], {"Authorization": f"Bearer {user['token']}"}, context)


PYTORCH_JOB_KIND = ROOT / "local/alidade_local/manifests/pytorchjobs.yaml"
TRAIN_JOB_KINDS = ROOT / "tests/operator/trainjobs.yaml"


def own_kinds() -> list[Path]:
    """Files of our CustomResourceDefinitions."""
    return sorted((ROOT / "crds").glob("*.yaml"))


async def install_kinds(api: Api, files: list[Path]) -> None:
    """Makes the API server know the kinds of these files."""
    for file in files:
        for body in yaml.safe_load_all(file.read_text()):
            await send(api, "POST", CRD, CRD.path(), body)


async def install_all_kinds(kubeconfig: Path) -> None:
    """Makes the API server know our kinds and PyTorchJobs."""
    api = Api(lambda: connection(kubeconfig), connections=4)
    try:
        await install_kinds(api, [*own_kinds(), PYTORCH_JOB_KIND])
    finally:
        await api.close()


async def send(
    api: Api,
    method: str,
    kind: Kind,
    path: str,
    body: dict[str, Any],
    *,
    content_type: str = "application/json",
    **params: str,
) -> dict[str, Any]:
    """A call that the operator itself never makes."""
    return await api._send(method, kind, path, params=params or None, body=body, content_type=content_type)


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Played:
    """One namespace, where a training job is a PyTorchJob."""

    training_kind = PYTORCH_JOB
    container = "pytorch"

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self._servers: list[web.AppRunner] = []

    async def create_namespace(self) -> None:
        """Makes the namespace, with the usual claims."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await send(self.api, "POST", NAMESPACE, NAMESPACE.path(), body)
        for name in ("alidade-workspace", "data"):
            await self.claim(name)

    async def close(self) -> None:
        """Ends the servers of progress, and removes the resources, so that the operator forgets them."""
        for server in self._servers:
            await server.cleanup()
        # Runs first: what they have made would come back.
        for kind in sorted(PARENT_KINDS, key=lambda kind: kind is not ALIGNMENT_RUN):
            for body in (await self.api.list(kind, namespace=self.namespace))[0]:
                await self.delete(kind, body["metadata"]["name"])

    async def claim(self, name: str) -> None:
        """Makes a claim."""
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": CLAIM.kind, "metadata": {"name": name}, "spec": spec}
        await self.api.create(CLAIM, self.namespace, body)

    async def apply(self, name: str, **blocks: Any) -> dict[str, Any]:
        """Applies a FineTuneJob as a user does; fields left out fall back to their defaults."""
        spec = {
            "method": "pretrain",
            "model": {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}},
            "dataset": {"uri": "pvc://data/train.json"},
        } | blocks
        return await self.apply_kind(FINE_TUNE_JOB, name, spec)

    async def apply_kind(self, kind: Kind, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Applies a resource as a user does."""
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        path = kind.path(self.namespace, name)
        apply_patch = "application/apply-patch+yaml"
        return await send(
            self.api, "PATCH", kind, path, body, content_type=apply_patch, fieldManager="kubectl", force="true"
        )

    async def read(self, name: str, kind: Kind = FINE_TUNE_JOB) -> dict[str, Any]:
        """The resource's status."""
        status: dict[str, Any] = (await self.api.get(kind, self.namespace, name)).get("status") or {}
        return status

    async def child(self, kind: Kind, stage: str, run: str = "demo", *, timeout_s: float = 60) -> dict[str, Any]:
        """What a run has made for a stage, once it is there."""
        selector = f"app.kubernetes.io/instance={run},app.kubernetes.io/component={stage}"

        async def look() -> dict[str, Any] | None:
            found, _ = await self.api.list(kind, namespace=self.namespace, selector=selector)
            return found[0] if found else None

        made: dict[str, Any] = await self.until(look, f"{kind.kind} of {run} for {stage}", timeout_s=timeout_s)
        return made

    async def train(self, name: str, result: ResultDocument, *, base: str = "", timeout_s: float = 60) -> None:
        """The first attempt of a resource runs and succeeds; base: what the names of its PyTorchJobs begin with."""

        async def look() -> dict[str, Any] | None:
            jobs = await self.training_jobs(name)
            return next((job for job in jobs.values() if job["metadata"]["name"].startswith(base or name)), None)

        job = await self.until(look, f"a PyTorchJob of {name}", timeout_s=timeout_s)
        await self.run_pod(job)
        await self.end_pod(job["metadata"]["name"], result=result)

    async def evaluate(self, name: str, result: ResultDocument) -> None:
        """The first attempt of an Evaluation runs and succeeds; the test is the controller of Jobs and the kubelet."""
        await self.complete(f"{name}-1", "evaluation", result)

    async def complete(self, job_name: str, container: str, result: ResultDocument) -> None:
        """A Job, once it is there, runs and succeeds with a result in its container's last words."""

        async def look() -> dict[str, Any] | None:
            jobs, _ = await self.api.list(JOB, namespace=self.namespace)
            return next((job for job in jobs if job["metadata"]["name"] == job_name), None)

        await self.end_job(await self.until(look, f"Job {job_name}"), container, result)

    async def end_job(self, job: dict[str, Any], container: str, result: ResultDocument) -> None:
        """A Job's only pod comes and succeeds with a result in its container's last words."""
        job_name = job["metadata"]["name"]
        owner = {"apiVersion": JOB.api_version, "kind": JOB.kind, "name": job_name, "uid": job["metadata"]["uid"]}
        labels = job["spec"]["template"]["metadata"]["labels"] | {
            "batch.kubernetes.io/job-name": job_name,
            "batch.kubernetes.io/job-completion-index": "0",
        }
        pod = f"{job_name}-0-abcde"
        metadata = {"name": pod, "labels": labels, "ownerReferences": [owner | {"controller": True}]}
        spec = {"containers": [{"name": container, "image": "none"}], "restartPolicy": "Never"}
        await self.api.create(
            POD, self.namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        )
        ended = {"exitCode": 0, "message": result.to_termination_message(), "startedAt": now(), "finishedAt": now()}
        told = {
            "name": container, "image": "none", "imageID": "none", "ready": False, "restartCount": 0,
            "state": {"terminated": ended | {"reason": "Completed"}},
        }  # fmt: skip
        await self.write_status(POD, pod, {"phase": "Succeeded", "containerStatuses": [told]})
        complete = {
            "type": "Complete",
            "status": "True",
            "reason": "Played",
            "message": "",
            "lastTransitionTime": now(),
        }
        status = {"conditions": [complete], "startTime": now(), "completionTime": now(), "succeeded": 1}
        await self.write_status(JOB, job_name, status)

    async def roll_out(self, name: str) -> dict[str, Any]:
        """The Deployment of a ModelServe, once it is there, with every replica ready; the test is its controller."""

        async def look() -> dict[str, Any] | None:
            found, _ = await self.api.list(DEPLOYMENT, namespace=self.namespace)
            return next((body for body in found if body["metadata"]["name"] == name), None)

        body: dict[str, Any] = await self.until(look, f"Deployment {name}")
        await self.make_ready(body)
        return body

    async def make_ready(self, body: dict[str, Any]) -> None:
        """A Deployment's controller says that every replica of its newest spec is ready."""
        count = body["spec"]["replicas"]
        numbers = {f"{word}Replicas": count for word in ("updated", "ready", "available")}
        status = numbers | {"replicas": count, "observedGeneration": body["metadata"]["generation"]}
        await self.write_status(DEPLOYMENT, body["metadata"]["name"], status)

    async def training_jobs(self, name: str) -> dict[str, dict[str, Any]]:
        """The training jobs of a FineTuneJob by name."""
        selector = f"app.kubernetes.io/instance={name}"
        items, _ = await self.api.list(self.training_kind, namespace=self.namespace, selector=selector)
        return {item["metadata"]["name"]: item for item in items}

    async def launched(self, name: str, attempt: int = 1) -> dict[str, Any]:
        """The training job of an attempt, once it is there."""

        async def look() -> dict[str, Any] | None:
            return (await self.training_jobs(name)).get(f"{name}-{attempt}")

        found: dict[str, Any] = await self.until(look, f"{name}-{attempt} to be launched")
        return found

    async def until(self, look: Callable[[], Awaitable[Any]], what: str, *, timeout_s: float = 60) -> Any:
        """The first answer that is true; fails after the time, saying what did not happen."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = await look()
            if answer:
                return answer
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout_s:g} s: {what}")
            await asyncio.sleep(0.02)

    async def phase(self, name: str, *phases: str, kind: Kind = FINE_TUNE_JOB, timeout_s: float = 60) -> dict[str, Any]:
        """The status, once it is in one of the phases."""

        async def look() -> dict[str, Any] | None:
            status = await self.read(name, kind)
            return status if status.get("phase") in phases else None

        found: dict[str, Any] = await self.until(look, f"{name} to be {' or '.join(phases)}", timeout_s=timeout_s)
        return found

    async def run_pod(self, job: dict[str, Any], *, ip: str = "127.0.0.1", lingers: bool = False) -> None:
        """The training operator makes the first pod, the kubelet runs it, the training operator says so.

        lingers: once deleted, the pod stays until `release_pod`, as one does that saves a checkpoint.
        """
        name = job["metadata"]["name"]
        metadata = await self.first_pod(job)
        if lingers:
            metadata["finalizers"] = ["alidade.dev/test"]
        spec = {"containers": [{"name": self.container, "image": "none"}], "restartPolicy": "Never"}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        await self.api.create(POD, self.namespace, body)
        state = {"running": {"startedAt": now()}}
        await self.pod_status(name, {"phase": "Running", "podIP": ip}, state)
        await self.job_status(name, "Running")

    def pod_name(self, job: str) -> str:
        """Name of the first pod of a training job."""
        return f"{job}-master-0"

    async def first_pod(self, job: dict[str, Any]) -> dict[str, Any]:
        """Metadata of the first pod of a training job, as its controller makes it."""
        name = job["metadata"]["name"]
        template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        labels = template["metadata"]["labels"] | {
            "training.kubeflow.org/job-name": name,
            "training.kubeflow.org/replica-type": "master",
            "training.kubeflow.org/replica-index": "0",
        }
        owner = {
            "apiVersion": PYTORCH_JOB.api_version,
            "kind": PYTORCH_JOB.kind,
            "name": name,
            "uid": job["metadata"]["uid"],
            "controller": True,
        }
        return {"name": self.pod_name(name), "labels": labels, "ownerReferences": [owner]}

    async def pod_status(self, job: str, status: dict[str, Any], state: dict[str, Any]) -> None:
        """The kubelet writes a pod's status."""
        container = {
            "name": self.container, "image": "none", "imageID": "none", "ready": False, "restartCount": 0,
            "state": state,
        }  # fmt: skip
        await self.write_status(POD, self.pod_name(job), status | {"containerStatuses": [container]})

    async def job_status(self, name: str, *true: str) -> None:
        """The training job's controller writes its conditions."""
        conditions = [
            {
                "type": kind,
                "status": "True",
                "reason": f"PyTorchJob{kind}",
                "message": f"PyTorchJob {name} is {kind}",
                "lastUpdateTime": now(),
                "lastTransitionTime": now(),
            }
            for kind in ("Created", *true)
        ]
        status: dict[str, Any] = {"conditions": conditions, "startTime": now()}
        if true and true[-1] in ("Succeeded", "Failed"):
            status["completionTime"] = now()
        await self.write_status(PYTORCH_JOB, name, status)

    async def write_status(self, kind: Kind, name: str, status: dict[str, Any]) -> None:
        """A controller writes fields of a status."""
        path = kind.path(self.namespace, name, "status")
        merge_patch = "application/merge-patch+json"
        await send(self.api, "PATCH", kind, path, {"status": status}, content_type=merge_patch)

    async def end_pod(self, name: str, *, exit_code: int = 0, result: ResultDocument | None = None) -> None:
        """The training container of a job ends, and the job's controller sees it."""
        message = result.to_termination_message() if result is not None else ""
        terminated = {"exitCode": exit_code, "message": message, "startedAt": now(), "finishedAt": now()}
        phase = "Succeeded" if exit_code == 0 else "Failed"
        await self.pod_status(name, {"phase": phase}, {"terminated": terminated | {"reason": "Completed"}})
        await self.job_status(name, phase)

    async def delete(self, kind: Kind, name: str) -> None:
        """Deletes an object by name, at once."""
        try:
            body = await self.api.get(kind, self.namespace, name)
            await self.api.delete(kind, self.namespace, name, uid=body["metadata"]["uid"])
        except ApiError as error:
            if not error.not_found:
                raise

    async def release_pod(self, job: str) -> None:
        """Lets a pod go that lingers."""
        path = POD.path(self.namespace, self.pod_name(job))
        merge_patch = "application/merge-patch+json"
        await send(self.api, "PATCH", POD, path, {"metadata": {"finalizers": None}}, content_type=merge_patch)

    async def serve_progress(self, document: dict[str, Any]) -> str:
        """Answers GET /progress with the document as it is at the time, on an address of its own, which is returned."""

        async def answer(request: web.Request) -> web.Response:
            return web.json_response(document)

        app = web.Application()
        app.add_routes([web.get("/progress", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        address = f"127.93.{next(_addresses)}.1"
        await web.TCPSite(runner, address, 8080).start()
        self._servers.append(runner)
        return address

    async def events(self, name: str) -> list[dict[str, Any]]:
        """Events about a FineTuneJob."""
        items, _ = await self.api.list(EVENT, namespace=self.namespace)
        return [item for item in items if item["involvedObject"]["name"] == name]


async def watch(api: Api, kind: Kind, namespace: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Every change of a kind in a namespace, from the first object on."""
    current = api._connection
    params = {"watch": "true", "resourceVersion": "0"}
    async with api._session.get(
        current.server + kind.path(namespace), params=params, headers=current.headers, timeout=ClientTimeout(total=None)
    ) as response:
        async for line in response.content:
            event = json.loads(line)
            yield event["type"], event["object"]
