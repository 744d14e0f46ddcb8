"""`alidade wait`: a bar at a terminal, elsewhere a line for each change."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from alidade.state import failure, has_failed, has_succeeded, why_not_yet
from alidade_cli.errors import ClusterSilent, CommandFailed
from alidade_cli.kube import Cluster, Resource
from alidade_crds.crd import Kind

# Often enough to look alive, rarely enough to cost an API server nothing.
_POLL_INTERVAL_S = 1.0
# A wait of hours outlives an API server that starts anew.
_PATIENCE_S = 60.0
_STUCK = ("Pending", "Waiting", "Queued")


def wait_for(cluster: Cluster, kind: Kind, name: str, *, timeout_s: float | None) -> Resource:
    """The resource once it has succeeded, a ModelServe once it serves its spec; meanwhile stderr says how far it is.

    CommandFailed with the condition's message when it fails, after timeout_s, and when the cluster has not answered for
    a minute.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    heard_at = time.monotonic()
    resource: Resource = {}
    with _telling(f"{kind.kind} {name}", kind.kind) as tell:
        while True:
            try:
                resource = cluster.read(kind, name)
            except ClusterSilent:
                if not resource or time.monotonic() - heard_at > _PATIENCE_S:
                    raise
            else:
                heard_at = time.monotonic()
                tell(resource)
            if has_succeeded(kind.kind, resource):
                return resource
            if has_failed(kind.kind, resource):
                raise CommandFailed(f"{kind.kind} {name} failed: {failure(resource)[1]}")
            if deadline is not None and time.monotonic() > deadline:
                why = why_not_yet(kind.kind, resource)
                raise CommandFailed(f"{kind.kind} {name} has not finished after {timeout_s:g} s; {why}")
            time.sleep(_POLL_INTERVAL_S)


Tell = Callable[[Resource], None]


@contextmanager
def _telling(what: str, kind: str) -> Iterator[Tell]:
    """What shows people how far a resource is. On stderr: stdout is for the result."""
    if not sys.stderr.isatty():
        yield _lines(what, kind)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=min(40, len(what)))),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=11)),
        TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis"), markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=None, note="")
        told = ""

        def tell(resource: Resource) -> None:
            nonlocal told
            done, why = _progress(resource), _obstacle(kind, resource)
            note = ", ".join([_state(resource), *_numbers(resource)])
            progress.update(bar, completed=done.get("step", 0), total=done.get("totalSteps"), note=note)
            if why not in ("", told):
                # Above the bar: a sentence has no room in it.
                progress.console.print(why, style="yellow", markup=False, highlight=False)
            told = why

        yield tell


def _lines(what: str, kind: str) -> Tell:
    """Tells by a line for each state that is another one than before, as a log keeps it."""
    told = ""

    def tell(resource: Resource) -> None:
        nonlocal told
        state = ": ".join(filter(None, (what, _state(resource), _obstacle(kind, resource))))
        if state != told:
            click.echo(f"{time.strftime('%H:%M:%S')} {state}", err=True)
            told = state

    return tell


def _state(resource: Resource) -> str:
    """Phase and stage, of a ModelServe its replicas."""
    status = resource.get("status", {})
    phase = status.get("phase", "Pending")
    words = f"{phase} {stage}" if (stage := status.get("stage")) else phase
    replicas = status.get("replicas")
    return words if replicas is None else f"{words}, {status.get('readyReplicas', 0)} of {replicas} ready"


def _obstacle(kind: str, resource: Resource) -> str:
    """What keeps it where it is; empty while it moves."""
    why = why_not_yet(kind, resource)
    return why if resource.get("status", {}).get("phase") in _STUCK and not why.startswith("it is") else ""


def _progress(resource: Resource) -> Resource:
    """How far the job is, of a ModelServe its quantization."""
    status = resource.get("status", {})
    found: Resource = status.get("progress") or (status.get("quantizationJob") or {}).get("progress") or {}
    return found


def _numbers(resource: Resource) -> Iterator[str]:
    done = _progress(resource)
    if (reward := resource.get("status", {}).get("reward")) is not None:
        yield f"reward {reward:.3f}"
    if (loss := done.get("loss")) is not None:
        yield f"loss {loss:.3f}"
    if (speed := done.get("tokensPerSecond")) is not None:
        yield f"{speed:,.0f} tok/s"
    if eta := done.get("eta"):
        yield f"{eta} left"
