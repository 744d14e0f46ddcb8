"""`alidade data`: a dataset as a job would train on it, before the job is started."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import ValidationError

from alidade_cli.errors import CommandFailed
from alidade_cli.local_cluster import volumes_of
from alidade_cli.preview import print_preview
from alidade_crds.contract import SCRATCH_ENV, VOLUMES_ENV, JobDocument, JobModel, Owner, Stage
from alidade_crds.jobs import FineTuneJobSpec, Method, RewardModelSpec
from alidade_crds.preview import PreviewDocument, PreviewRequest
from alidade_crds.text_dataset import TextDataset

_PROGRAM = "alidade_trainer"
_COUNTED = 10_000  # records by default: seconds, and enough to know the lengths


@click.group(short_help="Look at a dataset before it is trained on.")
def data() -> None:
    """Look at a dataset before it is trained on."""


@data.command(short_help="Print records as tokens, with those that carry loss.")
@click.argument("target")
@click.option("--model", help="Model whose tokenizer is used: a folder or an address; default: the manifest's.")
@click.option("--data", "uri", help="Dataset in place of the manifest's: a file, a folder or an address.")
@click.option("--method", type=click.Choice(list(Method)), help="How a data file is learned; default: sft.")
@click.option("--template", help="Template in place of the manifest's: a name, or Jinja.")
@click.option("--max-length", type=click.IntRange(8, 131072), help="Longest sequence, in place of the manifest's.")
@click.option("--namespace", "-n", default="default", show_default=True, help="Whose local volumes pvc:// names.")
@click.option(
    "--configmap", "configmaps", multiple=True, metavar="NAME=FOLDER",
    help="Folder whose files configmap://NAME/… names; may be repeated.",
)  # fmt: skip
@click.option("--first", type=click.IntRange(1), default=1, show_default=True, help="First record to print.")
@click.option("--records", type=click.IntRange(0, 1000), default=5, show_default=True, help="Records to print.")
@click.option(
    "--limit", type=click.IntRange(0), default=_COUNTED, show_default=True,
    help="Records of each dataset that are counted; 0: all.",
)  # fmt: skip
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def show(
    target: str,
    model: str | None,
    uri: str | None,
    method: str | None,
    template: str | None,
    max_length: int | None,
    namespace: str,
    configmaps: tuple[str, ...],
    first: int,
    records: int,
    limit: int,
    output: str,
) -> None:
    """Print records of TARGET as tokens, with those that carry loss, and count what a job would leave out.

    TARGET is a file or folder of records, an address of some, or a manifest with FineTuneJobs, RewardModels or
    AlignmentRuns (their SFT stage); - reads a manifest from stdin. No cluster is asked: what configmap:// names is
    looked for in the manifest and in --configmap, and pvc:// in the volumes of the local cluster. Without a model,
    records are printed as text. Exit code 1: the data cannot be read, or a job would fail with it.
    """
    changes = {"uri": uri and _address(uri), "template": template, "maxLength": max_length}
    if target == "-" or target.endswith((".yaml", ".yml")):
        documents = _documents(target)
        jobs = list(_jobs(documents, changes, model))
        if not jobs:
            raise CommandFailed(f"{target} holds no FineTuneJob, RewardModel or AlignmentRun with an sft.template.")
    else:
        documents = []
        jobs = [_job_of_file(_address(target), changes, model, Method(method or Method.SFT))]
    failed = False
    with tempfile.TemporaryDirectory(prefix="alidade-data-") as folder:
        volumes = _volumes(Path(folder) / "volumes", documents, configmaps, namespace)
        for job in jobs:
            request = PreviewRequest(job=job, first=first, records=records, limit=limit or None)
            answer = _asked(request, volumes)
            failed = failed or bool(answer.failure)
            if output == "json":
                click.echo(answer.model_dump_json(by_alias=True))
            else:
                print_preview(answer, job, limit=limit or None)
    sys.exit(1 if failed else 0)


def _address(text: str) -> str:
    return text if "://" in text else Path(text).absolute().as_uri()


def _documents(target: str) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if target == "-" else Path(target).read_text("utf-8")
        return [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except OSError as error:
        raise CommandFailed(f"{target} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise CommandFailed(f"{target} is not YAML: {' '.join(str(error).split())}") from error


def _jobs(documents: list[dict[str, Any]], changes: dict[str, Any], model: str | None) -> Iterator[JobDocument]:
    """The jobs of a manifest, with what the options change."""
    for document in documents:
        kind, spec = str(document.get("kind")), document.get("spec") or {}
        name = str((document.get("metadata") or {}).get("name"))
        if kind == "AlignmentRun":
            spec, kind = (spec.get("sft") or {}).get("template"), "FineTuneJob"
        if kind not in ("FineTuneJob", "RewardModel") or not spec:
            continue
        spec = {**spec, "dataset": {**spec.get("dataset", {}), **_set(changes)}}
        if model is not None:
            spec = {**spec, "model": {"uri": _address(model)}}
        try:
            yield _job(kind, name, spec)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            raise CommandFailed(f"{kind} {name}: spec.{field}: {first['msg']} (found {first['input']!r}).") from error


def _job(kind: str, name: str, spec: dict[str, Any]) -> JobDocument:
    """As the operator writes it, as far as data is concerned."""
    typed = (FineTuneJobSpec if kind == "FineTuneJob" else RewardModelSpec).model_validate(spec)
    if typed.model.from_ is not None:
        raise CommandFailed(
            f"{kind} {name}: model.from names a {typed.model.from_.kind} that only a cluster knows. Name its model, or "
            "another with the same tokenizer: --model FOLDER."
        )
    fine_tune = typed if isinstance(typed, FineTuneJobSpec) else None
    return JobDocument(
        owner=Owner(kind=kind, namespace="default", name=name, uid=""),
        stage=Stage(fine_tune.method.value) if fine_tune else Stage.REWARD,
        model=JobModel(uri=typed.model.address, init=typed.model.init, trust_remote_code=typed.model.trust_remote_code),
        dataset=TextDataset.of(typed.dataset),
        training=typed.training,
        vocabulary=fine_tune.vocabulary if fine_tune else None,
        context=fine_tune.context if fine_tune else None,
        output="file:///nowhere",
    )


def _job_of_file(uri: str, changes: dict[str, Any], model: str | None, method: Method) -> JobDocument:
    return JobDocument(
        owner=Owner(kind="FineTuneJob", namespace="default", name="data", uid=""),
        stage=Stage(method.value),
        model=JobModel(uri=_address(model) if model is not None else None),
        dataset=TextDataset.model_validate({**_set(changes), "uri": uri}),
        output="file:///nowhere",
    )


def _set(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def _volumes(folder: Path, documents: list[dict[str, Any]], configmaps: Sequence[str], namespace: str) -> Path:
    """A folder of volumes as a pod has it: claims of the local cluster, ConfigMaps of the manifest and the options."""
    (folder / "configmaps").mkdir(parents=True)
    for word in configmaps:
        name, _, place = word.partition("=")
        if not name or not Path(place).is_dir():
            raise click.UsageError(f"--configmap is {word}; write NAME=FOLDER, with a folder that exists.")
        (folder / "configmaps" / name).symlink_to(Path(place).absolute())
    for claim in volumes_of(namespace):
        (folder / claim.name).symlink_to(claim)
    for document in documents:
        if document.get("kind") == "ConfigMap":
            own = folder / "configmaps" / str(document["metadata"]["name"])
            if own.is_symlink():
                continue
            own.mkdir(exist_ok=True)
            for key, text in (document.get("data") or {}).items():
                (own / key).write_text(text, "utf-8")
    return folder


def _asked(request: PreviewRequest, volumes: Path) -> PreviewDocument:
    if importlib.util.find_spec(_PROGRAM) is None:
        raise CommandFailed(
            "Tokens are made by the package alidade-trainer, which is not installed beside this command; install it "
            "there, or run the command in the .venv of `make install`."
        )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"{_PROGRAM}.main", "show"],
        input=json.dumps(request.to_dict()),
        env=os.environ | {VOLUMES_ENV: str(volumes), SCRATCH_ENV: str(volumes.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CommandFailed(lines[-1].replace(f"{volumes}/configmaps/", "configmap://"))
    return PreviewDocument.model_validate_json(done.stdout.splitlines()[-1])
