"""`alidade logs`: of jobs and of what is served."""

import click

from alidade.errors import NotFoundError
from alidade.pods import newest, present_stage, selector_of_logs
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, kind_named
from alidade_crds.crd import Kind


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
