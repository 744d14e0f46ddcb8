"""`alidade bench`: the options of the load generator."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from alidade_cli import bench as load
from alidade_cli.completion import complete_target
from alidade_cli.doors import Door, door_to_serve, door_to_url, is_url, read_key
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import parse_target
from alidade_cli.loadtest.apis import APIS, ApiName
from alidade_cli.loadtest.arrivals import ARRIVALS, Arrivals
from alidade_cli.loadtest.lengths import FORMS, Lengths, parse_lengths
from alidade_cli.loadtest.load import Bounds
from alidade_cli.loadtest.measuring import Plan
from alidade_cli.loadtest.prompts import read_prompts
from alidade_cli.loadtest.summary import parse_objectives
from alidade_cli.local_cluster import connect

_LENGTHS = load.Word("LENGTHS", parse_lengths)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(short_help="Measure what is served.")
def bench() -> None:
    """Measure what is served."""


@bench.command(short_help="Put load on a served model.")
@click.argument("target", shell_complete=complete_target)
@click.option("--namespace", "-n", help="Namespace; default: the kubeconfig's.")
@click.option(
    "--rate", "--rates", "rates", type=load.Word("NUMBERS", load.numbers(float)), default=None,
    help="Requests per second, in the mean; several, as in 1,2,4, are run one after the other. Default: 1.",
)  # fmt: skip
@click.option(
    "--streams", type=load.Word("NUMBERS", load.numbers(int)), default=None,
    help="In place of --rate: so many requests at once, each answer followed by the next. May be several.",
)  # fmt: skip
@click.option(
    "--duration", type=click.FloatRange(0.1, 86400), default=30.0, show_default=True,
    help="Seconds in which requests arrive, for each load.",
)  # fmt: skip
@click.option("--arrivals", type=click.Choice(ARRIVALS), default="poisson", show_default=True, help="When they arrive.")
@click.option(
    "--burst-size", type=click.IntRange(1, 10000), default=8, show_default=True, help="Requests of --arrivals burst."
)
@click.option(
    "--prompt-tokens", type=_LENGTHS, default="64", show_default=True, help=f"Length of the prompts: {FORMS}."
)
@click.option(
    "--answer-tokens", type=_LENGTHS, default="64", show_default=True, help="Longest answers, in the same forms."
)
@click.option("--prompts", "prompt_file", type=_FILE, help="JSON lines of prompts, in place of --prompt-tokens.")
@click.option("--api", type=click.Choice(APIS), default="chat", show_default=True, help="API that is asked.")
@click.option("--model", help="Model to ask for; default: the first that the server names.")
@click.option("--key-file", type=_FILE, help="File with a bearer key; default: $ALIDADE_ENDPOINT_KEY.")
@click.option(
    "--objective", "objectives", type=load.Word("SECONDS", parse_objectives), default=None,
    help="What a good answer keeps to, in seconds: ttft=0.5,tpot=0.05,e2e=5.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0.1, 3600), default=60.0, show_default=True,
    help="Seconds from its arrival until a request counts as failed.",
)  # fmt: skip
@click.option(
    "--max-in-flight", type=click.IntRange(1, 10000), default=1024, show_default=True,
    help="Requests at once; more wait, and the time counts.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of arrivals, prompts and lengths.")
@click.option("--output", "-o", "form", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
@click.option("--chart", type=_NEW_FILE, help="File for a page with charts.")
@click.option("--records", type=_NEW_FILE, help="File for JSON lines, one of each request.")
def serve(
    target: str,
    namespace: str | None,
    key_file: Path | None,
    model: str | None,
    form: str,
    chart: Path | None,
    records: Path | None,
    **options: Any,
) -> None:
    """Put load on TARGET (ms/NAME, NAME of a ModelServe, or a URL) and measure it; exit 1 when nothing is answered.

    Requests arrive by a schedule, whatever becomes of the ones before, and latencies count from the arrival. Ends by
    itself; ctrl-c ends it early, and prints what was measured till then.
    """
    plan = _plan(**options)
    door = _door(target, namespace, model, key_file)
    sys.exit(load.run(door, plan, form, chart, records))


def _door(target: str, namespace: str | None, model: str | None, key_file: Path | None) -> Door:
    key = read_key(key_file, os.environ)
    if is_url(target):
        return door_to_url(target, model=model, key=key)
    kind, name = parse_target(target, bare="ModelServe")
    if kind.kind != "ModelServe":
        raise CommandFailed(f"{kind.kind} {name} is not served; name a ModelServe (ms/NAME) or an address")
    return door_to_serve(connect(namespace), name, model=model, key=key)


def _plan(
    rates: tuple[float, ...] | None,
    streams: tuple[int, ...] | None,
    duration: float,
    arrivals: Arrivals,
    burst_size: int,
    prompt_tokens: Lengths,
    answer_tokens: Lengths,
    prompt_file: Path | None,
    api: ApiName,
    objectives: dict[str, float] | None,
    timeout: float,
    max_in_flight: int,
    seed: int,
) -> Plan:
    if rates and streams:
        raise click.UsageError("--rate and --streams are two kinds of load; give one of them.")
    most = max(rates or (1.0,)) * duration
    if not streams and most > load.MOST_REQUESTS:
        raise click.UsageError(f"--rate × --duration is {most:.0f} requests; at most {load.MOST_REQUESTS} are planned.")
    if streams and max(streams) > max_in_flight:
        raise click.UsageError(f"--streams is {max(streams)} and --max-in-flight {max_in_flight}; raise the second.")
    try:
        prompts = tuple(read_prompts(prompt_file)) if prompt_file is not None else ()
    except (ValueError, OSError) as error:
        raise click.UsageError(f"--prompts: {error}") from error
    return Plan(
        rates=() if streams else rates or (1.0,),
        streams=streams or (),
        arrivals=arrivals,
        burst_size=burst_size,
        bounds=Bounds(duration, timeout, max_in_flight),
        api=api,
        prompt_lengths=prompt_tokens,
        answer_lengths=answer_tokens,
        prompts=prompts,
        objectives=objectives or {},
        seed=seed,
    )
