"""Cases: short scripts of requests, and what a server answers to them, freed of what is another each time."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
import yaml

from tests.local.conformance.servers import Server

Json = dict[str, Any]

FOLDER = Path(__file__).parent
GROUP = "conformance.alidade.dev"
PATHS = {
    "configmaps": "/api/v1/namespaces/{ns}/configmaps",
    "secrets": "/api/v1/namespaces/{ns}/secrets",
    "pods": "/api/v1/namespaces/{ns}/pods",
    "services": "/api/v1/namespaces/{ns}/services",
    "accounts": "/api/v1/namespaces/{ns}/serviceaccounts",
    "events": "/api/v1/namespaces/{ns}/events",
    "deployments": "/apis/apps/v1/namespaces/{ns}/deployments",
    "jobs": "/apis/batch/v1/namespaces/{ns}/jobs",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases",
    "roles": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/roles",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings",
    "gauges": f"/apis/{GROUP}/v1/namespaces/{{ns}}/gauges",
}
"""What a path may begin with instead of being written out."""

_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_AGE = re.compile(r"\d+[smhd]")
_DECODER = re.compile(
    r"cannot be handled as a|couldn't get version/kind|provided object is unrecognized|object provided is unrecognized|"
    r"is not valid (JSON|YAML|protobuf)|is not Kubernetes protobuf|must be an object|is missing in|"
    r"API version in the data|cannot unmarshal|invalid character|unexpected end of JSON|error converting YAML|"
    r"json patch for type|error decoding|does not begin with|yaml: |after top-level value"
)
"""What a decoder says of bytes it cannot read: each program's own words, which no client reads."""
MEDIA = {
    "json": "application/json",
    "yaml": "application/yaml",
    "json-patch": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "table": "application/json;as=Table;v=v1;g=meta.k8s.io",
    "partial": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "partial-list": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
}


@dataclass(frozen=True)
class Case:
    """Requests that are made one after the other, in a namespace of their own."""

    name: str
    steps: Sequence[Json]


def written_cases() -> list[Case]:
    """The cases of the folder `cases`; a file's name begins its cases' names."""
    found: list[Case] = []
    for path in sorted((FOLDER / "cases").glob("*.yaml")):
        for name, steps in yaml.safe_load(path.read_text()).items():
            found.append(Case(f"{path.stem}: {name}", steps))
    return found


@dataclass
class _Names:
    """What an answer holds that is another each time, by the order in which it appears."""

    namespace: str
    uids: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def text(self, text: str) -> str:
        """A string with names in place of what changes."""
        text = _TIME.sub("<time>", text)
        text = _UID.sub(lambda found: self.uids.setdefault(found[0], f"<uid {len(self.uids) + 1}>"), text)
        text = text.replace(self.namespace, "<namespace>")
        for version, name in self.versions.items() if "esource" in text and "ersion" in text else ():
            text = re.sub(rf"(?<![\w.-]){version}(?![\w.-])", name, text)
        return text

    def version(self, version: str) -> str:
        """A resource version's name."""
        return self.versions.setdefault(version, f"<version {len(self.versions) + 1}>")


def _plain(value: Any, names: _Names, key: str = "", parent: Json | None = None) -> Any:
    if isinstance(value, dict):
        inner = {name: _plain(item, names, name, value) for name, item in value.items()}
        if inner.get("code") in (400, 500) and _DECODER.search(str(inner.get("message"))):
            inner["message"] = "<a decoder's words>"
        causes = (inner.get("details") or {}).get("causes") if key == "" and inner.get("kind") == "Status" else None
        if causes and len(causes) > 1:  # found in the order of Go's maps, which is another each time
            causes.sort(key=lambda cause: (cause.get("field", ""), cause["message"]))
            inner["message"] = inner["message"].partition("[")[0].partition("conflicts with")[0] + "<the causes>"
        if key == "columnDefinitions" or "columnDefinitions" in inner:
            for column in inner.get("columnDefinitions") or ():
                column.pop("description", None)
        if "generateName" in inner and "name" in inner:
            inner["name"] = inner["generateName"] + "<generated>"
        return inner
    if isinstance(value, list):
        items = [_plain(item, names, key, None) for item in value]
        if key == "managedFields":
            for item in items:  # what was applied without effect is answered without a time
                item.pop("time", None)
            items.sort(key=lambda item: (item.get("manager", ""), item["operation"], item.get("subresource", "")))
        if key in ("clusterIPs",):
            return ["<address>" for _ in items]
        return items
    if not isinstance(value, str):
        return "<port>" if key == "nodePort" else value
    if key == "resourceVersion" and value.isdigit():
        # A list's version is that of the whole server, where others write too.
        return names.version(value) if parent is not None and "uid" in parent else "<version>"
    if key == "continue":
        return "<continue>"
    if key == "clusterIP" and value not in ("None", ""):
        return "<address>"
    if key == "token" and value.count(".") == 2:
        return "<token>"
    if key == "cells" and _AGE.fullmatch(value):
        return "<age>"
    return names.text(value)


def _dig(value: Any, path: str) -> str:
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part, "none")
    return str(value)


class Runner:
    """Runs cases on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._number = itertools.count(1)
        self._prefix = f"case-{secrets.token_hex(3)}"

    def run(self, case: Case) -> list[Json]:
        """The answers to a case's requests, in their order."""
        namespace = f"{self._prefix}-{next(self._number)}"
        body = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self._send("POST", "/api/v1/namespaces", body.encode(), {"Content-Type": "application/json"})
        names = _Names(namespace)
        answers: dict[str, Json] = {"last": {}}
        plain = []
        try:
            for step in case.steps:
                plain.append(self._step(step, names, answers))
        finally:
            if self._server.pid is None:  # a server that lives on
                for path in PATHS.values():
                    self._strip_finalizers(path.format(ns=namespace))
                self._send("DELETE", f"/api/v1/namespaces/{namespace}", b"", {})
        return plain

    def _strip_finalizers(self, path: str) -> None:
        for item in json.loads(self._send("GET", path, b"", {}).data).get("items") or ():
            if item["metadata"].get("finalizers"):
                patch = b'{"metadata":{"finalizers":null}}'
                self._send("PATCH", f"{path}/{item['metadata']['name']}", patch, {"Content-Type": MEDIA["merge"]})

    def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str], *, stream: bool = False
    ) -> urllib3.BaseHTTPResponse:
        return self._server.pool.request(
            method,
            self._server.url + path,
            body=body or None,
            headers={"User-Agent": "conformance/1", **self._server.headers, **headers},
            retries=False,
            timeout=10,
            preload_content=not stream,
        )

    def _step(self, step: Json, names: _Names, answers: dict[str, Json]) -> Json:
        def filled(text: str) -> str:
            text = text.replace("{ns}", names.namespace)
            return re.sub(r"\{(\w+)\.([\w.]+)\}", lambda found: _dig(answers[found[1]], found[2]), text)

        method = next(name for name in step if name.isupper())
        path = str(step[method])
        first, mark, rest = path.partition("?")
        head, slash, tail = first.partition("/")
        path = PATHS.get(head, head) + slash + tail + mark + rest
        content = step.get("body", b"")
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        if isinstance(content, str):
            content = filled(content).encode()
        default = "merge" if method == "PATCH" else "json"
        media = step.get("type", default)
        headers = {"Content-Type": MEDIA.get(media, media)} if content or "type" in step else {}
        if "accept" in step:
            headers["Accept"] = MEDIA.get(step["accept"], step["accept"])
        headers |= {name: filled(value) for name, value in step.get("headers", {}).items()}
        if method == "WATCH":
            return self._watch(filled(path), headers, int(step["events"]), names)
        response = self._send(method, filled(path), content, headers)
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = response.data.decode(errors="replace")
        answers["last"] = answers[step.get("as", "last")] = answer
        plain: Json = {"code": response.status, "body": _plain(answer, names)}
        if response.status < 400 and (warnings := response.headers.getlist("Warning")):
            plain["warnings"] = warnings
        return plain if "only" not in step else {"code": response.status, **_part(plain["body"], step["only"])}

    def _watch(self, path: str, headers: dict[str, str], count: int, names: _Names) -> Json:
        response = self._send("GET", path, b"", headers, stream=True)
        events = []
        try:
            for line in itertools.islice(_lines(response), count) if response.status == 200 else ():
                event = json.loads(line)
                if event["type"] == "BOOKMARK":
                    event["object"]["metadata"]["resourceVersion"] = "<version>"
                events.append(_plain(event, names))
            body = events if response.status == 200 else _plain(json.loads(response.read()), names)
        finally:
            response.close()
        return {"code": response.status, "body": body}


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream():
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def _part(body: Any, paths: Sequence[str]) -> Json:
    """Some fields of an answer, where the rest is of no interest."""
    part = {}
    for path in paths:
        try:
            value = body
            for name in path.split("."):
                value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, TypeError):
            value = None
        part[path] = value
    return part
