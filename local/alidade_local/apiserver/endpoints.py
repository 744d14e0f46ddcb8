"""HTTP on resources: each method and path becomes one verb on objects, its outcome one answer."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aiohttp import web

from alidade_local.apiserver import patching, scaling
from alidade_local.apiserver.admission import Admission, Write
from alidade_local.apiserver.auth import UserInfo
from alidade_local.apiserver.encoding import as_object, copy_json, decode_json, decode_yaml
from alidade_local.apiserver.errors import (
    conflict,
    forbidden,
    method_not_allowed,
    no_such_resource,
    unsupported_media_type,
)
from alidade_local.apiserver.listing import Filter, list_page
from alidade_local.apiserver.negotiation import negotiate
from alidade_local.apiserver.options import (
    ListOptions,
    WriteOptions,
    check_patch_options,
    delete_options,
    flag,
    list_options,
    write_options,
)
from alidade_local.apiserver.paths import ResourcePath
from alidade_local.apiserver.pod_endpoints import PodEndpoints
from alidade_local.apiserver.proxy import Proxy
from alidade_local.apiserver.rbac import Attributes, Authorizer
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.requests import (
    APPLY_PATCH,
    PATCH_TYPES,
    json_response,
    read_body,
    read_object,
    read_options,
    warning_headers,
)
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.rest import Objects, Outcome, Target
from alidade_local.apiserver.service_accounts import ACCOUNTS_KEY, ServiceAccountTokens
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.apiserver.storage import Stored
from alidade_local.apiserver.views import Views
from alidade_local.apiserver.watch import Watch

Json = dict[str, Any]

_ITEM = ("Table", "PartialObjectMetadata")
_LIST = ("Table", "PartialObjectMetadataList")
# A change that meets another one between a webhook's answer and the write is made anew, as often as this.
_MOST_TRIES = 5


class Endpoints:
    """Answers requests below /api and /apis that name a resource."""

    def __init__(
        self,
        objects: Objects,
        registry: Registry,
        authorizer: Authorizer,
        accounts: ServiceAccountTokens,
        settings: ApiServerSettings,
    ) -> None:
        self._objects = objects
        self._authorizer = authorizer
        self._accounts = accounts
        self._store = objects.store
        self._registry = registry
        self._settings = settings
        self._pods = PodEndpoints(objects, settings)
        self._proxy = Proxy(objects)
        self._admission = Admission(objects.store)
        self._watches: set[Watch] = set()

    async def close(self) -> None:
        """End all watches, and the connections to pods."""
        for watch in list(self._watches):
            watch.close()
        await self._pods.close()
        await self._proxy.close()
        await self._admission.close()

    async def answer(self, request: web.BaseRequest, path: ResourcePath, user: UserInfo) -> web.StreamResponse:
        """The answer to a request, whatever its verb."""
        resource = self._registry.find(path.group, path.version, path.plural)
        if resource is None or (path.namespace is not None and not resource.namespaced):
            raise no_such_resource()
        if path.name and resource.namespaced and path.namespace is None:
            raise no_such_resource()
        attributes = _attributes(request, resource, path)
        if not self._authorizer.allows(user, attributes):
            raise forbidden(resource, path.name, attributes.refusal(user))
        if request.method == "PATCH" and request.content_type == APPLY_PATCH and not path.subresource:
            self._check_may_create(resource, path, user)
        if path.subresource:
            return await self._answer_subresource(request, resource, path, user)
        if path.name:
            return await self._answer_object(request, resource, path, user)
        return await self._answer_collection(request, resource, path, user)

    def _check_may_create(self, resource: Resource, path: ResourcePath, user: UserInfo) -> None:
        """Applying what is absent takes the right to create it."""
        if self._store.get(resource.key, path.namespace or "", path.name) is not None:
            return
        attributes = Attributes("create", resource.group, resource.plural, "", path.name, path.namespace or "")
        if not self._authorizer.allows(user, attributes):
            raise forbidden(resource, path.name, attributes.refusal(user))

    # -- collections ----------------------------------------------------------------------------------------------

    async def _answer_collection(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, user: UserInfo
    ) -> web.StreamResponse:
        everywhere = resource.namespaced and path.namespace is None
        match request.method:
            case "GET" | "HEAD":
                return await self._list_or_watch(request, resource, path)
            case "POST" if not everywhere:
                return await self._create(request, resource, path, user)
            case "DELETE" if "deletecollection" in resource.verbs and not everywhere:
                return await self._delete_collection(request, resource, path)
        raise method_not_allowed()

    async def _list_or_watch(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, name: str = ""
    ) -> web.StreamResponse:
        watch = _is_watch(request, path)
        options = list_options(request.query, watch=watch)
        chosen = Filter(resource, options, name)
        if watch:
            return await self._watch(request, resource, path, options, chosen)
        form = negotiate(request.headers.get("Accept"), _LIST)
        page = list_page(self._store, resource, path.namespace, options, chosen)
        await self._store.committed()
        views = Views(resource, form, request.query.get("includeObject", "Metadata"))
        return json_response(views.page(page), yaml_form=form.yaml)

    async def _watch(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, options: ListOptions, chosen: Filter
    ) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept"), _ITEM)
        views = Views(resource, form, request.query.get("includeObject", "Metadata"))
        watch = Watch(self._store, resource, path.namespace, options, chosen, views=views, settings=self._settings)
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        self._watches.add(watch)
        try:
            with suppress(ConnectionError):  # the client left; there is nobody to tell
                await response.prepare(request)
                async for chunk in watch.chunks():
                    await response.write(chunk)
                await response.write_eof()
        finally:
            self._watches.discard(watch)
        return response

    async def _create(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, user: UserInfo
    ) -> web.StreamResponse:
        options = _write_options(request, "CreateOptions")
        obj = self._taken_in(resource, await read_object(request, self._settings))
        target = Target(self._plain(resource), path.namespace or "", "")
        outcome = await self._admitted(
            target, lambda way: self._objects.create(target, copy_json(obj), way), options, user
        )
        return await self._respond(request, resource, outcome)

    async def _admitted(
        self, target: Target, write: Callable[[WriteOptions], Outcome], options: WriteOptions, user: UserInfo
    ) -> Outcome:
        """The outcome of a write that the webhooks let through. write: can be called any number of times."""
        if target.subresource or not self._admission.concerns(target.resource):
            return write(options)
        for _ in range(_MOST_TRIES):
            before = self._current(target)
            trial = write(replace(options, dry_run=True))
            old = before.obj if before is not None else None
            warnings = await self._admission.ask(Write(target, trial.obj, old, user, options.dry_run))
            now = self._current(target)
            if (now.rv if now is not None else 0) != (before.rv if before is not None else 0):
                continue  # what was let through is no longer what would be written
            outcome = write(options)
            outcome.warnings = [*outcome.warnings, *warnings]
            return outcome
        raise conflict(target.resource, target.name)

    def _current(self, target: Target) -> Stored | None:
        return self._store.get(target.resource.key, target.namespace, target.name) if target.name else None

    async def _delete_collection(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath
    ) -> web.StreamResponse:
        chosen = Filter(resource, list_options(request.query))
        options = delete_options(request.query, await read_options(request, self._settings))
        page = list_page(self._store, resource, path.namespace, ListOptions(), chosen)
        for stored in page.items:
            self._objects.delete(Target(resource, stored.namespace, stored.name), options)
        await self._store.committed()
        return json_response(Views(resource, negotiate(request.headers.get("Accept"), _LIST)).page(page))

    # -- single objects -------------------------------------------------------------------------------------------

    async def _answer_object(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, user: UserInfo
    ) -> web.StreamResponse:
        target = Target(self._plain(resource), path.namespace or "", path.name)
        match request.method:
            case "GET" | "HEAD":
                if _is_watch(request, path):
                    return await self._list_or_watch(request, resource, path, path.name)
                return await self._get(request, resource, target)
            case "PUT":
                return await self._update(request, resource, target, user)
            case "PATCH":
                return await self._patch(request, resource, target, user)
            case "DELETE":
                return await self._delete(request, resource, target)
        raise method_not_allowed()

    async def _get(self, request: web.BaseRequest, resource: Resource, target: Target) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept"), _ITEM)
        stored = self._objects.get(target)
        await self._store.committed(stored.rv)
        views = Views(resource, form, request.query.get("includeObject", "Metadata"))
        return json_response(views.item(stored), yaml_form=form.yaml)

    async def _update(
        self, request: web.BaseRequest, resource: Resource, target: Target, user: UserInfo
    ) -> web.StreamResponse:
        options = _write_options(request, "UpdateOptions")
        obj = self._taken_in(resource, await read_object(request, self._settings))
        outcome = await self._admitted(
            target, lambda way: self._objects.update(target, copy_json(obj), way), options, user
        )
        return await self._respond(request, resource, outcome)

    async def _patch(
        self, request: web.BaseRequest, resource: Resource, target: Target, user: UserInfo
    ) -> web.StreamResponse:
        media = request.content_type
        if media not in PATCH_TYPES:
            raise unsupported_media_type(media, PATCH_TYPES)
        body = await read_body(request, self._settings)
        decode = decode_yaml if media == APPLY_PATCH else decode_json
        patch = decode(body, self._settings.max_nesting)
        options = _write_options(request, "PatchOptions")
        check_patch_options(options, request.query.get("fieldManager", ""), applies=media == APPLY_PATCH)
        if media == APPLY_PATCH:
            config = as_object(patch)

            def write(way: WriteOptions) -> Outcome:
                return self._objects.apply(target, copy_json(config), way)
        else:

            def write(way: WriteOptions) -> Outcome:
                change = copy_json(patch)
                return self._objects.patch(
                    target, lambda old: patching.patched(media, old, change, target.resource), way
                )

        outcome = await self._admitted(target, write, options, user)
        return await self._respond(request, resource, outcome)

    async def _delete(self, request: web.BaseRequest, resource: Resource, target: Target) -> web.StreamResponse:
        options = delete_options(request.query, await read_options(request, self._settings))
        outcome, gone = self._objects.delete(target, options)
        await self._store.committed()
        if not gone or resource.key == "pods.":
            return json_response(Views(resource, negotiate(request.headers.get("Accept"), _ITEM)).shown(outcome.obj))
        details: Json = {"name": target.name, "kind": resource.plural, "uid": outcome.obj["metadata"].get("uid", "")}
        if resource.group:
            details["group"] = resource.group
        return json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    # -- subresources ---------------------------------------------------------------------------------------------

    async def _answer_subresource(
        self, request: web.BaseRequest, resource: Resource, path: ResourcePath, user: UserInfo
    ) -> web.StreamResponse:
        target = Target(self._plain(resource), path.namespace or "", path.name, path.subresource)
        if path.subresource == "status" and resource.has_status:
            match request.method:
                case "GET":
                    return await self._get(request, resource, target)
                case "PUT":
                    return await self._update(request, resource, target, user)
                case "PATCH":
                    return await self._patch(request, resource, target, user)
        elif path.subresource == "scale" and resource.scale is not None:
            return await self._scale(request, target)
        elif path.subresource == "token" and resource.key == ACCOUNTS_KEY and request.method == "POST":
            account = self._objects.get(target)
            wanted = await read_object(request, self._settings)
            return json_response(self._accounts.answer(target, account, wanted), status=201)
        elif path.subresource == "proxy" and resource.key in ("pods.", "services."):
            return await self._proxy.answer(request, target, path.rest)
        elif resource.key == "pods.":
            return await self._pods.answer(request, target, path)
        elif path.subresource == "finalize" and resource.key == "namespaces." and request.method == "PUT":
            obj = await read_object(request, self._settings)
            options = _write_options(request, "UpdateOptions")
            return await self._respond(
                request, resource, self._objects.update(Target(resource, "", path.name, "finalize"), obj, options)
            )
        raise no_such_resource()

    async def _scale(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        options = _write_options(request, "PatchOptions" if request.method == "PATCH" else "UpdateOptions")
        plain = Target(target.resource, target.namespace, target.name)
        current = self._objects.get(plain)
        scale = scaling.scale_of(target.resource, current.obj)
        if request.method == "GET":
            await self._store.committed(current.rv)
            return json_response(scale)
        if request.method == "PUT":
            wanted = await read_object(request, self._settings)
        elif request.method == "PATCH" and request.content_type in PATCH_TYPES[:3]:
            patch = decode_json(await read_body(request, self._settings), self._settings.max_nesting)
            current = self._objects.get(plain)
            scale = scaling.scale_of(target.resource, current.obj)
            media = PATCH_TYPES[1] if request.content_type == PATCH_TYPES[2] else request.content_type
            wanted = patching.patched(media, scale, patch, target.resource)
        elif request.method == "PATCH":
            raise unsupported_media_type(request.content_type, PATCH_TYPES[:3])
        else:
            raise method_not_allowed()
        current = self._objects.get(plain)
        new = scaling.scaled(target.resource, copy_json(current.obj), wanted)
        outcome = self._objects.replace(target, current, new, options)
        await self._store.committed(outcome.rv)
        return json_response(scaling.scale_of(target.resource, outcome.obj))

    # -- answers --------------------------------------------------------------------------------------------------

    @staticmethod
    def _plain(resource: Resource) -> Resource:
        """The resource whose rules apply: for another view of stored objects, the one they are stored as."""
        return resource.stored_view or resource

    @staticmethod
    def _taken_in(resource: Resource, obj: Json) -> Json:
        if resource.convert_in is None or obj.get("apiVersion") != resource.api_version:
            return obj
        return resource.convert_in(obj)

    async def _respond(self, request: web.BaseRequest, resource: Resource, outcome: Outcome) -> web.Response:
        await self._store.committed(outcome.rv)
        form = negotiate(request.headers.get("Accept"), _ITEM)
        views = Views(resource, form, request.query.get("includeObject", "Metadata"))
        body: bytes | Json = views.item(outcome.stored) if outcome.stored is not None else views.loose(outcome.obj)
        response = json_response(body, status=201 if outcome.created else 200, yaml_form=form.yaml)
        for name, value in warning_headers(outcome.warnings):
            response.headers.add(name, value)
        return response


def _write_options(request: web.BaseRequest, kind: str) -> WriteOptions:
    return write_options(request.query, request.headers.get("User-Agent", ""), kind)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _attributes(request: web.BaseRequest, resource: Resource, path: ResourcePath) -> Attributes:
    """What the request wants, in the words of roles."""
    verb = _VERBS.get(request.method, "get" if path.name else "list")
    if verb in ("get", "list") and _is_watch(request, path) and not path.subresource:
        verb = "watch"
    if verb == "delete" and not path.name:
        verb = "deletecollection"
    name = path.name.split(":")[1 if path.name.count(":") == 2 else 0] if path.subresource == "proxy" else path.name
    return Attributes(verb, resource.group, resource.plural, path.subresource, name, path.namespace or "")


def _is_watch(request: web.BaseRequest, path: ResourcePath) -> bool:
    return path.watch or (not path.name and flag(request.query, "watch"))
