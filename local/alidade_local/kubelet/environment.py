"""The environment of a container: values, references to ConfigMaps, Secrets and pod fields, $(VAR) expansion."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from alidade_local.objects import Object, annotations_of, labels_of, name_of, namespace_of, uid_of
from alidade_local.quantities import parse_quantity

_REFERENCE = re.compile(r"\$(\$|\([-._a-zA-Z0-9]+\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


class MissingReferenceError(Exception):
    """A ConfigMap, Secret, key or field that the pod names does not exist (yet)."""


@dataclass(frozen=True)
class ReferencedData:
    """The ConfigMaps and Secrets a pod names, as they are now; what does not exist is absent."""

    config_maps: Mapping[str, Object] = field(default_factory=dict)
    secrets: Mapping[str, Object] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[tuple[str, str]]:
        """What tells whether something has changed: uid and resource version of each."""
        documents = [*self.config_maps.values(), *self.secrets.values()]
        return frozenset((uid_of(document), document["metadata"].get("resourceVersion", "")) for document in documents)

    def config_map(self, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
        """Contents by key; empty for an optional ConfigMap that does not exist."""
        document = self.config_maps.get(name)
        if document is None:
            if optional:
                return {}
            raise MissingReferenceError(f'configmap "{name}" not found in namespace {namespace}')
        text = {key: value.encode() for key, value in (document.get("data") or {}).items()}
        return text | {key: base64.b64decode(value) for key, value in (document.get("binaryData") or {}).items()}

    def secret(self, namespace: str, name: str, *, optional: bool) -> dict[str, bytes]:
        """Contents by key; empty for an optional Secret that does not exist."""
        document = self.secrets.get(name)
        if document is None:
            if optional:
                return {}
            raise MissingReferenceError(f'secret "{name}" not found in namespace {namespace}')
        return {key: base64.b64decode(value) for key, value in (document.get("data") or {}).items()}


def references_of(pod: Object) -> tuple[set[str], set[str]]:
    """The names of the ConfigMaps and of the Secrets that a pod's containers and volumes refer to."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    spec = pod["spec"]
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for source in container.get("envFrom") or []:
            _add_name(config_maps, source.get("configMapRef"))
            _add_name(secrets, source.get("secretRef"))
        for variable in container.get("env") or []:
            source = variable.get("valueFrom") or {}
            _add_name(config_maps, source.get("configMapKeyRef"))
            _add_name(secrets, source.get("secretKeyRef"))
    for volume in spec.get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            _add_name(config_maps, source.get("configMap"))
            secret = source.get("secret") or {}
            _add_name(secrets, {"name": secret.get("secretName") or secret.get("name")})
    return config_maps, secrets


def _add_name(names: set[str], reference: Object | None) -> None:
    if reference and reference.get("name"):
        names.add(reference["name"])


@dataclass(frozen=True)
class PodFacts:
    """What the downward API can say about a pod that is not in its metadata."""

    pod_ip: str
    host_ip: str
    node_name: str
    allocatable: Mapping[str, str]


def build_environment(
    pod: Object, container: Object, *, facts: PodFacts, data: ReferencedData, base: Mapping[str, str]
) -> dict[str, str]:
    """The container's variables; later ones win, and may refer to earlier ones as $(NAME).

    base: variables that exist before those of the container (PATH, HOME, HOSTNAME).
    Raises MissingReferenceError, worded as the kubelet words it.
    """
    result = dict(base)
    for source in container.get("envFrom") or []:
        result |= _from_whole(pod, source, data)
    for variable in container.get("env") or []:
        if variable.get("valueFrom"):
            value = _from_source(pod, container, variable["valueFrom"], facts, data)
            if value is not None:
                result[variable["name"]] = value
        else:
            result[variable["name"]] = expand(variable.get("value") or "", result)
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) by the variable's value; unknown names stay as they are and $$ is a literal $."""

    def replacement(found: re.Match[str]) -> str:
        token = found.group(1)
        return "$" if token == "$" else variables.get(token[1:-1], found.group())

    return _REFERENCE.sub(replacement, text)


def _from_whole(pod: Object, source: Object, data: ReferencedData) -> dict[str, str]:
    namespace, prefix = namespace_of(pod), source.get("prefix") or ""
    if reference := source.get("configMapRef"):
        contents = data.config_map(namespace, reference["name"], optional=bool(reference.get("optional")))
    else:
        reference = source["secretRef"]
        contents = data.secret(namespace, reference["name"], optional=bool(reference.get("optional")))
    return {f"{prefix}{key}": value.decode(errors="replace") for key, value in contents.items()}


def _from_source(pod: Object, container: Object, source: Object, facts: PodFacts, data: ReferencedData) -> str | None:
    """The value, or None for an optional key that does not exist."""
    if reference := source.get("fieldRef"):
        return field_value(pod, reference["fieldPath"], facts)
    if reference := source.get("resourceFieldRef"):
        return resource_value(pod, container, reference, facts)
    namespace = namespace_of(pod)
    if reference := source.get("configMapKeyRef"):
        kind = "ConfigMap"
        contents = data.config_map(namespace, reference["name"], optional=bool(reference.get("optional")))
    else:
        kind, reference = "Secret", source["secretKeyRef"]
        contents = data.secret(namespace, reference["name"], optional=bool(reference.get("optional")))
    value = contents.get(reference["key"])
    if value is None:
        if reference.get("optional"):
            return None
        raise MissingReferenceError(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    return value.decode(errors="replace")


def field_value(pod: Object, path: str, facts: PodFacts) -> str:
    """A field of the pod by its downward API path, as text."""
    if subscript := _SUBSCRIPT.fullmatch(path):
        values = labels_of(pod) if subscript.group(1) == "labels" else annotations_of(pod)
        return values.get(subscript.group(2), "")
    service_account = str(pod["spec"].get("serviceAccountName") or "default")
    values = {
        "metadata.name": name_of(pod),
        "metadata.namespace": namespace_of(pod),
        "metadata.uid": uid_of(pod),
        "metadata.labels": _lines(labels_of(pod)),
        "metadata.annotations": _lines(annotations_of(pod)),
        "spec.nodeName": facts.node_name,
        "spec.serviceAccountName": service_account,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path not in values:
        raise MissingReferenceError(f"fieldRef {path!r} is not a field of the downward API")
    return values[path]


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_quoted(values[key])}"' for key in sorted(values))


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Object, container: Object, reference: Object, facts: PodFacts) -> str:
    """A request or limit of a container in units of the divisor, rounded up; without a limit what the node has."""
    spec = pod["spec"]
    wanted = reference.get("containerName") or container.get("name")
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    named = next((candidate for candidate in containers if candidate["name"] == wanted), None)
    if named is None:
        raise MissingReferenceError(f"resourceFieldRef names container {wanted!r}, which the pod does not have")
    which, _, resource = reference["resource"].partition(".")
    resources = named.get("resources") or {}
    amount = (resources.get(which) or {}).get(resource)
    if amount is None:
        amount = facts.allocatable.get(resource, "0") if which == "limits" else "0"
    divisor = parse_quantity(reference.get("divisor") or "1") or parse_quantity("1")
    return str(math.ceil(parse_quantity(amount) / divisor))
