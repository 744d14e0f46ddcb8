"""Commands about jobs and what is served: wait, logs."""

import time
from typing import Any

import click

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, Resource, condition, is_true, kind_named
from alidade_cli.serving import is_current, serves_spec, why_not_served
from alidade_crds.crd import Kind

# Often enough to look alive, rarely enough to cost an API server nothing.
_POLL_INTERVAL_S = 1.0
_FIRST_POD = {
    "PyTorchJob": "training.kubeflow.org/job-name={job},training.kubeflow.org/job-role=master",
    "Job": "batch.kubernetes.io/job-name={job},batch.kubernetes.io/job-completion-index=0",
}
"""Labels of the pod that tells most, by the kind of job."""


def wait_for(cluster: Cluster, kind: Kind, name: str, *, timeout_s: float | None) -> Resource:
    """The resource once it has succeeded, a ModelServe once it serves its spec, with a progress bar meanwhile.

    CommandFailed with the condition's message when it fails, and after timeout_s.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=11)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(f"{kind.kind} {name}", total=None, note="")
        while True:
            resource = cluster.read(kind, name)
            done = _progress(resource)
            progress.update(bar, completed=done.get("step", 0), total=done.get("totalSteps"), note=_note(resource))
            if is_true(resource, "Succeeded") or (kind.kind == "ModelServe" and serves_spec(resource)):
                return resource
            # A ModelServe goes on when its spec changes; what failed may be the spec before.
            if is_true(resource, "Failed") and (kind.kind != "ModelServe" or is_current(resource)):
                raise CommandFailed(f"{kind.kind} {name} failed: {_message(resource, 'Failed')}")
            if deadline is not None and time.monotonic() > deadline:
                why = why_not_served(resource) if kind.kind == "ModelServe" else _why_not_yet(resource)
                raise CommandFailed(f"{kind.kind} {name} has not finished after {timeout_s:g} s; {why}")
            time.sleep(_POLL_INTERVAL_S)


def _progress(resource: Resource) -> Resource:
    """How far the job is, of a ModelServe its quantization."""
    status = resource.get("status", {})
    found: Resource = status.get("progress") or (status.get("quantizationJob") or {}).get("progress") or {}
    return found


def _note(resource: Resource) -> str:
    status = resource.get("status", {})
    done = _progress(resource)
    parts = [status.get("phase", "Pending")]
    if stage := status.get("stage"):
        parts[0] += f" {stage}"
    if (replicas := status.get("replicas")) is not None:
        parts.append(f"{status.get('readyReplicas', 0)} of {replicas} ready")
    if (reward := status.get("reward")) is not None:
        parts.append(f"reward {reward:.3f}")
    if (loss := done.get("loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if (speed := done.get("tokensPerSecond")) is not None:
        parts.append(f"{speed:,.0f} tok/s")
    return ", ".join(parts)


def _why_not_yet(resource: Resource) -> str:
    for condition_type in ("Accepted", "Fits", "SFTReady", "RewardModelReady", "Launched"):
        found = condition(resource, condition_type)
        if found is not None and found["status"] == "False":
            return f"{condition_type} is False: {found['message']}"
    return f"it is {resource.get('status', {}).get('phase', 'not looked at by an operator yet')}"


def _message(resource: Resource, condition_type: str) -> str:
    found = condition(resource, condition_type)
    return str(found["message"]) if found else ""


def print_logs(cluster: Cluster, kind: Kind, name: str, *, follow: bool) -> None:
    """Prints the log of the job's first process: of the present attempt the master's, or the pod's of index 0.

    Of a run whose alignment has not been launched, that of the stage it is at.
    """
    resource = cluster.read(kind, name)
    status = resource.get("status", {})
    if kind.kind == "ModelServe":
        _print_server_logs(cluster, resource, name, follow=follow)
        return
    job = status.get("jobRef", {}).get("name")
    if job is None:
        stage: Resource = next((one for one in status.get("stages", []) if one["name"] == status.get("stage")), {})
        if stage.get("ref"):
            print_logs(cluster, kind_named(stage["kind"]), stage["ref"], follow=follow)
            return
        raise CommandFailed(f"{kind.kind} {name} has not been launched; {_why_not_yet(resource)}")
    _print_job_logs(cluster, status["jobRef"], follow=follow)


def _print_job_logs(cluster: Cluster, job: Resource, *, follow: bool) -> None:
    pods = cluster.pods(_FIRST_POD[job.get("kind", "PyTorchJob")].format(job=job["name"]))
    if not pods:
        raise CommandFailed(
            f"the pods of {job['name']} are gone, and their logs with them; the report beside the model stays"
        )
    _print_pod_log(cluster, pods[0], follow=follow)


def _print_server_logs(cluster: Cluster, resource: Resource, name: str, *, follow: bool) -> None:
    """While the model is quantized the log of that, else that of the newest replica."""
    status = resource.get("status", {})
    job = (status.get("quantizationJob") or {}).get("jobRef")
    if status.get("phase") == "Quantizing" and job:
        _print_job_logs(cluster, job, follow=follow)
        return
    pods = cluster.pods(status["selector"]) if status.get("selector") else []
    if not pods:
        raise CommandFailed(f"ModelServe {name} has no replicas; {why_not_served(resource)}")
    newest = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
    if len(pods) > 1:
        click.echo(f"{newest.metadata.name}, the newest of {len(pods)} replicas:", err=True)
    _print_pod_log(cluster, newest, follow=follow)


def _print_pod_log(cluster: Cluster, pod: Any, *, follow: bool) -> None:
    for line in cluster.log_lines(pod.metadata.name, pod.spec.containers[0].name, follow=follow):
        click.echo(line)
