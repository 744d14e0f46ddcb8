"""Commands about finished models: chat, report."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, Resource
from alidade_cli.serving import save_page
from alidade_crds.crd import Kind
from alidade_crds.uris import parse_uri


def folder_of(cluster: Cluster, uri: str) -> Path:
    """The folder on this machine that an output address means.

    A claim of the local cluster is a folder beside its kubeconfig. CommandFailed for addresses that are elsewhere.
    """
    location = parse_uri(uri)
    if location.scheme == "file":
        return Path(location.path)
    claim = cluster.kubeconfig.resolve().parent / "volumes" / cluster.namespace / location.root
    if location.scheme != "pvc" or not claim.is_dir():
        raise CommandFailed(f"{uri} is not on this machine; this command reads volumes of the local cluster only")
    return claim / location.path


def chat(
    cluster: Cluster,
    kind: Kind,
    name: str,
    *,
    prompts: tuple[str, ...],
    system: str,
    temperature: float,
    max_new_tokens: int,
) -> int:
    """Lets the model of a finished resource answer: every prompt once, or in turn at the terminal."""
    model = cluster.read(kind, name).get("status", {}).get("model")
    if not model:
        raise CommandFailed(
            f"{kind.kind} {name} has no model yet; `alidade wait {kind.short_name}/{name}` waits for it"
        )
    program = shutil.which("alidade-chat", path=str(Path(sys.executable).parent)) or shutil.which("alidade-chat")
    if program is None:
        raise CommandFailed("alidade-chat is not installed here; it comes with the package alidade-engine")
    command = [program, "--model", str(folder_of(cluster, model["uri"]))]
    command += ["--temperature", str(temperature), "--max-new-tokens", str(max_new_tokens)]
    command += ["--system", system] if system else []
    for prompt in prompts:
        command += ["--prompt", prompt]
    return subprocess.run(command, check=False).returncode


def save_report(cluster: Cluster, kind: Kind, name: str, target: Path | None) -> Path:
    """The path of a job's HTML report, copied to target when one is given; a ModelServe's is written here."""
    resource = cluster.read(kind, name)
    if kind.kind == "ModelServe":
        path = target or Path(f"{name}.html")
        save_page(resource, path)
        return path
    source = _report_of(cluster, kind, name, resource)
    if target is None:
        return source
    shutil.copyfile(source, target)
    return target


def read_result(cluster: Cluster, kind: Kind, name: str) -> dict[str, Any]:
    """What a job says of its result in the result.json beside its report; of a ModelServe, its status."""
    resource = cluster.read(kind, name)
    if kind.kind == "ModelServe":
        status: dict[str, Any] = resource.get("status", {})
        return status
    path = _report_of(cluster, kind, name, resource).with_name("result.json")
    if not path.is_file():
        raise CommandFailed(f"{path} is gone; kubectl get {kind.plural} {name} -o json has the status")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _report_of(cluster: Cluster, kind: Kind, name: str, resource: Resource) -> Path:
    uri = resource.get("status", {}).get("reportUri")
    if not uri:
        raise CommandFailed(f"{kind.kind} {name} has no report yet; it is written when the job ends")
    source = folder_of(cluster, uri)
    if not source.is_file():
        raise CommandFailed(f"the report {uri} is gone from its volume")
    return source
