"""Where a served model is reached from this machine: by an address, or through the API server of its cluster."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from alidade.state import condition, is_true
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, Resource, kind_named
from alidade_crds.contract import ENDPOINT_KEY_ENV


@dataclass(frozen=True)
class Door:
    """A way to a server. label: what it is, in words. model: the name to ask for, None to ask the server for it.

    tls: for https, None for http. balances: whether each request finds a replica of its own, so that connections may
    be kept.
    """

    url: str
    label: str
    model: str | None = None
    key: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    balances: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def read_key(key_file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The bearer key: the first line of a file, else the environment's; None without both."""
    if key_file is None:
        return _header_value(environment.get(ENDPOINT_KEY_ENV, "").strip(), f"${ENDPOINT_KEY_ENV}") or None
    try:
        lines = key_file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"--key-file {key_file} cannot be read: {error}") from error
    if not lines:
        raise CommandFailed(f"--key-file {key_file} is empty; it should hold one bearer key")
    return _header_value(lines[0], f"--key-file {key_file}")


def _header_value(key: str, name: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise CommandFailed(
            f"{name} holds what no header can carry; a bearer key is of ASCII letters, digits and signs"
        )
    return key


def door_to_url(url: str, *, model: str | None, key: str | None) -> Door:
    """The door to an address that was given."""
    base = url.rstrip("/").removesuffix("/v1")
    try:
        is_whole = bool(urlsplit(base).hostname) and urlsplit(base).port != 0
    except ValueError:  # a port that is no number
        is_whole = False
    if not is_whole:
        raise CommandFailed(f"{url!r} is no address; write it as http://HOST:PORT")
    tls = ssl.create_default_context() if base.startswith("https://") else None
    return Door(base, base, model, key, tls)


def is_url(target: str) -> bool:
    """Whether a target is an address and no resource."""
    return target.startswith(("http://", "https://"))


def door_to_serve(cluster: Cluster, name: str, *, model: str | None, key: str | None) -> Door:
    """The door to a ModelServe. CommandFailed says why while nothing answers there."""
    resource = cluster.read(kind_named("ModelServe"), name)
    # A gateway holds questions until there is a replica again.
    if not is_true(resource, "Available") and not resource.get("status", {}).get("gatewayReadyReplicas"):
        raise CommandFailed(f"ModelServe {name} does not answer: {why_not_available(resource)}")
    address = cluster.loopback_address(name)
    if address is not None:
        return Door(address, f"ModelServe {name} at {address}", model or name, key)
    if key is not None or resource["spec"].get("auth"):
        # The API server takes the Authorization header for its own and removes it.
        raise CommandFailed(
            f"ModelServe {name} asks for keys, which do not pass through the API server; run `kubectl port-forward "
            f"-n {cluster.namespace} service/{name} 8080:80` and name http://localhost:8080 in its place"
        )
    api = cluster.api_access()
    url = f"{api.url}/api/v1/namespaces/{cluster.namespace}/services/{name}:http/proxy"
    label = f"ModelServe {name} through the API server {api.url}"
    return Door(url, label, model or name, api.token, api.tls, balances=True)


def why_not_available(resource: Resource) -> str:
    """The sentence of the condition that says most."""
    for condition_type, status in (("Failed", "True"), ("Accepted", "False"), ("Available", "False")):
        found = condition(resource, condition_type)
        if found is not None and found["status"] == status and found["message"]:
            return str(found["message"])
    return "no operator has looked at it yet"
