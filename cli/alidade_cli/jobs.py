"""Commands about jobs and what is served: wait, logs."""

import time

import click

from alidade.errors import NotFoundError
from alidade.pods import newest, present_stage, selector_of_logs
from alidade.state import failure, has_failed, has_succeeded, why_not_yet
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, Resource, kind_named
from alidade_crds.crd import Kind

# Often enough to look alive, rarely enough to cost an API server nothing.
_POLL_INTERVAL_S = 1.0


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
            if has_succeeded(kind.kind, resource):
                return resource
            if has_failed(kind.kind, resource):
                raise CommandFailed(f"{kind.kind} {name} failed: {failure(resource)[1]}")
            if deadline is not None and time.monotonic() > deadline:
                why = why_not_yet(kind.kind, resource)
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


def print_logs(cluster: Cluster, kind: Kind, name: str, *, follow: bool) -> None:
    """Prints the log of the job's first process, of the present attempt, or of the newest replica.

    Of a run whose alignment has not been launched, that of the stage it is at.
    """
    resource = cluster.read(kind, name)
    stage = present_stage(resource)
    if stage is not None:
        print_logs(cluster, kind_named(stage[0]), stage[1], follow=follow)
        return
    try:
        pods = cluster.pods(selector_of_logs(kind.kind, name, resource))
        pod = newest(pods, kind.kind, name, resource)
    except NotFoundError as error:
        raise CommandFailed(str(error)) from error
    if len(pods) > 1:
        click.echo(f"{pod.metadata.name}, the newest of {len(pods)} replicas:", err=True)
    for line in cluster.log_lines(pod.metadata.name, pod.spec.containers[0].name, follow=follow):
        click.echo(line)
