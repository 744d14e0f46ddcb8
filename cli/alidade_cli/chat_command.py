"""`alidade chat`: the options of conversations, with served models and with trained ones."""

import os
import sys
from pathlib import Path

import click

from alidade_cli import models, served_chat
from alidade_cli.completion import complete_target
from alidade_cli.doors import door_to_serve, door_to_url, is_url, read_key
from alidade_cli.kube import Cluster, kind_named, parse_target
from alidade_cli.local_cluster import connect
from alidade_crds.crd import Kind

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Ask a model.")
@click.argument("target", shell_complete=complete_target)
@click.option("--namespace", "-n", help="Namespace; default: the kubeconfig's.")
@click.option(
    "--prompt", "-p", "prompts", multiple=True, help="A question to answer; can be repeated. Default: ask here."
)
@click.option("--system", default="", help="What the model is told before the conversation.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="Longest answer, in tokens; default: the server's limit, 256 of a trained model.",
)
@click.option(
    "--history", type=click.IntRange(0, 10000), default=16, show_default=True,
    help="Questions, with their answers, that a served model is told again with the next one.",
)  # fmt: skip
@click.option("--model", help="Model or adapter that a served model's server is asked for; default: its own.")
@click.option("--key-file", type=_FILE, help="File with a served model's bearer key; default: $ALIDADE_ENDPOINT_KEY.")
def chat(
    target: str,
    namespace: str | None,
    prompts: tuple[str, ...],
    system: str,
    temperature: float,
    max_new_tokens: int | None,
    history: int,
    model: str | None,
    key_file: Path | None,
) -> None:
    """Ask the model of TARGET.

    A served one by NAME of its ModelServe, ms/NAME or the address of any server with OpenAI's API; a trained one, on
    this machine, by ftj/NAME or ar/NAME. Without --prompt each line of the input is a question.
    """
    key = read_key(key_file, os.environ)
    if is_url(target):
        door = door_to_url(target, model=model, key=key)
    else:
        cluster = connect(namespace)
        kind, name = _meant(cluster, target)
        if kind.kind != "ModelServe":
            if model is not None or key_file is not None:
                raise click.UsageError(f"--model and --key-file are for served models; {kind.kind} {name} is not one.")
            sys.exit(
                models.chat(
                    cluster,
                    kind,
                    name,
                    prompts=prompts,
                    system=system,
                    temperature=temperature,
                    max_new_tokens=max_new_tokens,
                )
            )
        door = door_to_serve(cluster, name, model=model, key=key)
    sys.exit(
        served_chat.chat(
            door,
            prompts=prompts,
            system=system,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            history=history,
        )
    )


def _meant(cluster: Cluster, target: str) -> tuple[Kind, str]:
    """Kind and name; of a name alone the ModelServe, and the FineTuneJob when there is no such ModelServe."""
    serve = kind_named("ModelServe")
    is_served = "/" in target or cluster.find(serve, target) is not None
    return parse_target(target, bare="ModelServe" if is_served else "FineTuneJob")
