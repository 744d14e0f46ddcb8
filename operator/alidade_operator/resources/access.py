"""What a pod carries to reach models and data outside: credentials, proxies, and certificates that it trusts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alidade_crds.blocks import Compute, Credential
from alidade_crds.contract import HOSTS_ENV
from alidade_operator.config import CaBundle, NodePool, OperatorConfig, Proxy

CREDENTIALS_FOLDER = "/etc/alidade/credentials"
CA_FOLDER = "/etc/alidade/ca"
CA_FILE = "ca.crt"

# Never by a proxy: this pod, the cluster's Services, and the metadata server that workload identity asks.
_DIRECT = ("localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "169.254.169.254", "metadata.google.internal")
# Python's ssl and httpx, requests, curl, botocore, git: each has a name of its own for the same file.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO")


@dataclass(frozen=True)
class Access:
    """Parts of a pod. environment: for the programs' own to win over. whole: Secrets every key of which is a variable,
    over which everything else wins."""

    environment: list[dict[str, Any]] = field(default_factory=list)
    whole: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)

    def given_to(self, container: dict[str, Any]) -> dict[str, Any]:
        """The container with all of it; variables that it has already stay as they are."""
        environment = joined(self.environment, container.get("env", []))
        given = container | {"volumeMounts": [*container.get("volumeMounts", []), *self.mounts]}
        if environment:
            given["env"] = environment
        return given | ({"envFrom": list(self.whole)} if self.whole else {})


def access(compute: Compute, pool: NodePool, config: OperatorConfig) -> Access:
    """What a pod of the pool gets; where pool and resource name the same Secret or variable, the resource wins."""
    own = {one.secret_name for one in compute.credentials}
    credentials = [*(one for one in pool.credentials if one.secret_name not in own), *compute.credentials]
    found = Access()
    if config.proxy is not None:
        found.environment.extend(_proxies(config.proxy))
    if config.hosts != OperatorConfig().hosts:
        found.environment.append({"name": HOSTS_ENV, "value": config.hosts.to_json()})
    if config.ca_bundle is not None:
        _trust(config.ca_bundle, found)
    for number, credential in enumerate(credentials):
        _add(credential, f"credentials-{number}", found)
    return Access(joined([], found.environment), found.whole, found.volumes, found.mounts)


def joined(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both lists of variables as one; of those of the same name the last stays, since a list may hold each once."""
    last = {item["name"]: item for item in (*before, *after)}
    return [dict(item) for item in last.values()]


def _proxies(proxy: Proxy) -> Iterator[dict[str, Any]]:
    told = {
        "HTTP_PROXY": proxy.http,
        "HTTPS_PROXY": proxy.https or proxy.http,
        "NO_PROXY": ",".join(dict.fromkeys((*_DIRECT, *proxy.no_proxy))),
    }
    for name, value in told.items():
        if value is not None:
            # curl and Python read the lower-case name, Go and Java's tools the other.
            yield {"name": name, "value": value}
            yield {"name": name.lower(), "value": value}


def _trust(bundle: CaBundle, found: Access) -> None:
    items = [{"key": bundle.key, "path": CA_FILE}]
    found.volumes.append({"name": "ca", "configMap": {"name": bundle.config_map, "items": items}})
    found.mounts.append({"name": "ca", "mountPath": CA_FOLDER, "readOnly": True})
    found.environment.extend({"name": name, "value": f"{CA_FOLDER}/{CA_FILE}"} for name in _CA_VARIABLES)


def _add(credential: Credential, volume: str, found: Access) -> None:
    secret = credential.secret_name
    if credential.files:
        folder = f"{CREDENTIALS_FOLDER}/{secret}"
        if folder not in {mount["mountPath"] for mount in found.mounts}:
            # Readable by the pod's group, which fsGroup makes its own, and by nobody else.
            found.volumes.append({"name": volume, "secret": {"secretName": secret, "defaultMode": 0o440}})
            found.mounts.append({"name": volume, "mountPath": folder, "readOnly": True})
        found.environment.extend({"name": one.name, "value": f"{folder}/{one.key}"} for one in credential.variables)
    elif credential.variables:
        found.environment.extend(
            {"name": one.name, "valueFrom": {"secretKeyRef": {"name": secret, "key": one.key}}}
            for one in credential.variables
        )
    else:
        found.whole.append({"secretRef": {"name": secret}})
