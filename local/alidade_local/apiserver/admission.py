"""Validating webhooks: asked about an object that is about to be created or updated, and obeyed.

Differs from the original: they are asked one after the other, about objects only and neither about subresources nor
deletions, and matchConditions are not looked at. Mutating webhooks are not asked.
"""

import asyncio
import base64
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

from alidade_local.apiserver.auth import UserInfo
from alidade_local.apiserver.errors import ApiError, quoted
from alidade_local.apiserver.kinds_services import SERVICES_KEY
from alidade_local.apiserver.proxy import service_addresses
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.rest import Target
from alidade_local.apiserver.selectors import labels_of_selector
from alidade_local.apiserver.storage import Store

Json = dict[str, Any]

_CONFIGURATIONS = "validatingwebhookconfigurations.admissionregistration.k8s.io"
_GROUP = "admissionregistration.k8s.io"
_DEFAULT_TIMEOUT_S = 10
_DEFAULT_PORT = 443
_MOST_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Write:
    """What somebody is about to write."""

    target: Target
    new: Json
    old: Json | None
    user: UserInfo
    dry_run: bool

    @property
    def operation(self) -> str:
        """In the words of rules."""
        return "CREATE" if self.old is None else "UPDATE"


class CallError(Exception):
    """A webhook could not be asked, or gave no answer that can be read."""


class Admission:
    """Asks the webhooks that are configured in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to webhooks."""
        if self._session is not None:
            await self._session.close()

    def concerns(self, resource: Resource) -> bool:
        """Whether any webhook may want to be asked about objects of a resource."""
        return resource.group != _GROUP and bool(self._store.count(_CONFIGURATIONS))

    async def ask(self, write: Write) -> list[str]:
        """The webhooks' warnings; raises ApiError when one refuses, or cannot be asked and has to be."""
        warnings: list[str] = []
        for hook in self._matching(write):
            name = hook["name"]
            try:
                response = await self._call(hook, write)
            except CallError as error:
                if hook.get("failurePolicy", "Fail") == "Ignore":
                    continue
                raise ApiError(
                    500, "InternalError", f"Internal error occurred: failed calling webhook {quoted(name)}: {error}"
                ) from error
            warnings += [str(text) for text in response.get("warnings") or ()]
            if not response.get("allowed"):
                raise _denied(name, response.get("status") or {})
        return warnings

    def _matching(self, write: Write) -> Iterator[Json]:
        configurations = sorted(self._store.all(_CONFIGURATIONS), key=lambda stored: stored.name)
        for stored in configurations:
            for hook in stored.obj.get("webhooks") or ():
                rules = hook.get("rules") or ()
                if any(_covers(rule, write) for rule in rules) and self._selects(hook, write):
                    yield hook

    def _selects(self, hook: Json, write: Write) -> bool:
        objects = labels_of_selector(hook.get("objectSelector") or {})
        labelled = [one for one in (write.new, write.old) if one is not None]
        if not any(objects.matches(one["metadata"].get("labels") or {}) for one in labelled):
            return False
        if not write.target.namespace:
            return True
        namespace = self._store.get("namespaces.", "", write.target.namespace)
        labels = (namespace.obj["metadata"].get("labels") or {}) if namespace is not None else {}
        labels = {"kubernetes.io/metadata.name": write.target.namespace, **labels}
        return labels_of_selector(hook.get("namespaceSelector") or {}).matches(labels)

    async def _call(self, hook: Json, write: Write) -> Json:
        uid, seconds = str(uuid4()), hook.get("timeoutSeconds", _DEFAULT_TIMEOUT_S)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._post(hook["clientConfig"], _review(uid, write), seconds)
        except TimeoutError as error:
            raise CallError(f"failed to call webhook: context deadline exceeded ({seconds} s)") from error
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError, ApiError) as error:
            raise CallError(f"failed to call webhook: {error}") from error
        response = answer.get("response") if isinstance(answer, dict) else None
        if not isinstance(response, dict) or response.get("uid") != uid:
            raise CallError("received invalid webhook response: it does not answer the request's uid")
        return response

    async def _post(self, client: Json, review: Json, seconds: int) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        bundle = base64.b64decode(client.get("caBundle") or "").decode()
        context = ssl.create_default_context(cadata=bundle or None)
        url, host = self._place(client)
        query = {"timeout": f"{seconds}s"}
        async with self._session.post(
            url, params=query, json=review, ssl=context, server_hostname=host, allow_redirects=False
        ) as response:
            content = await response.content.read(_MOST_ANSWER_BYTES)
            if response.status != 200:
                raise ValueError(f"the server answered {response.status}: {content[:200].decode(errors='replace')}")
            return orjson.loads(content)

    def _place(self, client: Json) -> tuple[str, str | None]:
        """URL, and the name in the certificate where that is not the URL's host."""
        if client.get("url"):
            return str(client["url"]), None
        named = client["service"]
        stored = self._store.get(SERVICES_KEY, named["namespace"], named["name"])
        if stored is None:
            raise ValueError(f'service "{named["name"]}" not found')
        port = str(named.get("port", _DEFAULT_PORT))
        address, number = service_addresses(self._store, stored.obj, port)[0]
        path = str(named.get("path", "")).lstrip("/")
        return f"https://{address}:{number}/{path}", f"{named['name']}.{named['namespace']}.svc"


def _covers(rule: Json, write: Write) -> bool:
    resource = write.target.resource
    scope = rule.get("scope", "*")
    wanted = (
        ("operations", write.operation),
        ("apiGroups", resource.group),
        ("apiVersions", resource.version),
    )
    plurals = rule.get("resources") or ()
    return (
        all(value in (rule.get(name) or ()) or "*" in (rule.get(name) or ()) for name, value in wanted)
        and any(one in (resource.plural, "*", "*/*") for one in plurals)
        and scope in ("*", "Namespaced" if resource.namespaced else "Cluster")
    )


def _review(uid: str, write: Write) -> Json:
    resource, user = write.target.resource, write.user
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    plural = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    request: Json = {
        "uid": uid,
        "kind": kind,
        "resource": plural,
        "requestKind": kind,
        "requestResource": plural,
        "name": write.new["metadata"]["name"],
        "operation": write.operation,
        "userInfo": {"username": user.name, "uid": user.uid, "groups": list(user.all_groups)},
        "object": write.new,
        "oldObject": write.old,
        "dryRun": write.dry_run,
        "options": {
            "kind": "CreateOptions" if write.old is None else "UpdateOptions",
            "apiVersion": "meta.k8s.io/v1",
        },
    }
    if write.target.namespace:
        request["namespace"] = write.target.namespace
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def _denied(name: str, status: Json) -> ApiError:
    why = status.get("message") or status.get("reason")
    told = f": {why}" if why else " without explanation"
    code = max(400, int(status.get("code") or 0))
    return ApiError(code, str(status.get("reason") or ""), f"admission webhook {quoted(name)} denied the request{told}")
