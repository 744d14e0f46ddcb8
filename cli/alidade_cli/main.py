"""The `alidade` command, also as the kubectl plugin `kubectl alidade`."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alidade_cli import local_cluster
from alidade_cli.bench_command import bench
from alidade_cli.chat_command import chat
from alidade_cli.compare import FORMS, Form, print_results, results_of
from alidade_cli.completion import complete_target, completion
from alidade_cli.data_command import data
from alidade_cli.doctor_command import doctor
from alidade_cli.errors import INTERRUPTED
from alidade_cli.jobs import print_logs
from alidade_cli.kube import Cluster, parse_target
from alidade_cli.models import read_result, save_report
from alidade_cli.serving import Facts, facts
from alidade_cli.waiting import wait_for

_namespace = click.option("--namespace", "-n", help="Namespace; default: the kubeconfig's.")


def _place(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which a local cluster is named."""
    folder = click.Path(file_okay=False, path_type=Path)
    name = click.option("--name", default=local_cluster.DEFAULT_NAME, show_default=True, help="Which local cluster.")
    data_dir = click.option(
        "--data-dir", type=folder, help="Its folder; default: $ALIDADE_HOME/NAME or ~/.alidade/NAME."
    )
    return name(data_dir(command))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="alidade-cli", prog_name="alidade")
def alidade() -> None:
    """Fine-tunes, aligns, evaluates and serves language models on Kubernetes, from YAML.

    Resources are applied with kubectl; these commands start a cluster on this machine, wait for what was applied, show
    what came out and ask it. KIND/NAME names a resource: ftj/NAME (FineTuneJob), rm/NAME (RewardModel), ar/NAME
    (AlignmentRun), eval/NAME (Evaluation), ms/NAME (ModelServe).

    Answers go to stdout, progress and errors to stderr. Exit code 0: done; 1: not done, and the last line says why; 2:
    wrong usage; 130: ended by ctrl-c. Colours and bars are for terminals; NO_COLOR=1 turns colours off there, too.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


@alidade.command(short_help="Start a cluster on this machine.")
@_place
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the API server; default: any free one.")
@click.option("--no-operator", is_flag=True, help="Start the cluster alone, to run an operator of your own.")
@click.option("--reset", is_flag=True, help="Begin anew: stop it and delete its objects, models and logs first.")
@click.option("--foreground", is_flag=True, help="Stay, and stop the cluster with ctrl-c.")
def up(name: str, data_dir: Path | None, port: int, *, no_operator: bool, reset: bool, foreground: bool) -> None:
    """Start a cluster on this machine: API server, controllers, kubelet, operator."""
    flags = {"--no-operator": no_operator, "--reset": reset, "--foreground": foreground}
    given = [flag for flag, is_given in flags.items() if is_given]
    sys.exit(local_cluster.run("up", name, data_dir, ["--port", str(port), *given]))


@alidade.command(short_help="Stop the cluster on this machine.")
@_place
@click.option("--purge", is_flag=True, help="Delete the cluster's objects, models and logs too.")
def down(name: str, data_dir: Path | None, *, purge: bool) -> None:
    """Stop the cluster on this machine; its objects and volumes stay."""
    sys.exit(local_cluster.run("down", name, data_dir, ["--purge"] if purge else []))


@alidade.command(short_help="Say what runs on this machine.")
@_place
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def status(name: str, data_dir: Path | None, output: str) -> None:
    """Say what runs on this machine."""
    sys.exit(local_cluster.run("status", name, data_dir, ["--output", output]))


@alidade.command(short_help="Print the line that points kubectl to the local cluster.")
@_place
def env(name: str, data_dir: Path | None) -> None:
    """Print the shell line that points kubectl to the cluster: eval "$(alidade env)"."""
    click.echo(f"export KUBECONFIG={local_cluster.kubeconfig(name, data_dir)}")


@alidade.command(short_help="Wait for a result.")
@click.argument("target", shell_complete=complete_target)
@_namespace
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds after which to give up; default: never.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def wait(target: str, namespace: str | None, timeout: float | None, output: str) -> None:
    """Wait until TARGET (ftj, rm, ar or eval/NAME) has succeeded, or serves (ms/NAME); exit 1 when it fails."""
    kind, name = parse_target(target)
    resource = wait_for(_connect(namespace), kind, name, timeout_s=timeout)
    if output == "json":
        click.echo(json.dumps(resource.get("status", {})))
    else:
        _print_facts(facts(resource) if kind.kind == "ModelServe" else _result(resource))


@alidade.command(short_help="Print a log.")
@click.argument("target", shell_complete=complete_target)
@_namespace
@click.option("--follow", "-f", is_flag=True, help="Stay and print what comes.")
def logs(target: str, namespace: str | None, *, follow: bool) -> None:
    """Print the log of the job of TARGET (ftj/NAME, rm/NAME, ar/NAME, eval/NAME), or of the server (ms/NAME)."""
    kind, name = parse_target(target)
    print_logs(_connect(namespace), kind, name, follow=follow)


@alidade.command(short_help="Save or open a report.")
@click.argument("target", shell_complete=complete_target)
@_namespace
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="File to copy the page to.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def report(target: str, namespace: str | None, save: Path | None, output: str, *, show: bool) -> None:
    """Save or open the HTML report of TARGET (ftj/NAME, rm/NAME, ar/NAME, eval/NAME, ms/NAME).

    That of a ModelServe says how it is at present; without --save it is written to NAME.html. As JSON, the answer has
    beside the page's path what the job says of its result, with every metric; of a ModelServe its status.
    """
    kind, name = parse_target(target)
    cluster = _connect(namespace)
    path = save_report(cluster, kind, name, save)
    if output == "json":
        click.echo(json.dumps({"report": str(path), "result": read_result(cluster, kind, name)}, ensure_ascii=False))
    else:
        click.echo(path)
    if show:
        click.launch(path.resolve().as_uri())


@alidade.command(short_help="Print results side by side.")
@click.argument("target", shell_complete=complete_target)
@_namespace
@click.option("--output", "-o", "form", type=click.Choice(FORMS), default="table", help="Form of the answer.")
def compare(target: str, namespace: str | None, form: Form) -> None:
    """Print the results of TARGET (an Evaluation's NAME, or ar/NAME) side by side; exit 1 while there are none."""
    kind, name = parse_target(target, bare="Evaluation")
    print_results(results_of(_connect(namespace), kind, name), form)


alidade.add_command(bench)
alidade.add_command(chat)
alidade.add_command(completion)
alidade.add_command(data)
alidade.add_command(doctor)


def _connect(namespace: str | None) -> Cluster:
    return local_cluster.connect(namespace)


def _result(resource: dict[str, Any]) -> Facts:
    status = resource["status"]
    return [
        (label, f"{value:.6g}" if isinstance(value, float) else str(value))
        for label, value in (
            ("model", status.get("model", {}).get("uri")),
            ("digest", status.get("model", {}).get("digest")),
            ("report", status.get("reportUri")),
            ("verdict", status.get("verdict")),
            ("attempts", status.get("attempts")),
            *sorted(status.get("metrics", {}).items()),
        )
        if value is not None
    ]


def _print_facts(found: Facts) -> None:
    # Not a rich table: that would cut addresses at the terminal's width.
    for label, value in found:
        click.echo(f"{label:18} {value}")


def main() -> None:
    """The console script."""
    try:
        code = alidade.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:  # ctrl-c
        code = INTERRUPTED
    sys.exit(code)
