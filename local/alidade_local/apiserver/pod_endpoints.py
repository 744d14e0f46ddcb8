"""Subresources that only pods have: log, binding, eviction and portforward."""

from typing import Any

from aiohttp import web

from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.errors import ApiError, bad_request, conflict, method_not_allowed, no_such_resource
from alidade_local.apiserver.options import delete_options, write_options
from alidade_local.apiserver.paths import ResourcePath
from alidade_local.apiserver.port_forward import PortForwards
from alidade_local.apiserver.requests import json_response, read_object
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.budgets import Budget, count, guards, may_go
from alidade_local.kubelet.logs import LogError, LogOptions, PodLog

Json = dict[str, Any]


class PodEndpoints:
    """Answers requests on pods' subresources."""

    def __init__(self, objects: Objects, settings: ApiServerSettings) -> None:
        self._objects = objects
        self._settings = settings
        self._forwards = PortForwards()

    async def close(self) -> None:
        """End what goes on between clients and pods."""
        await self._forwards.close()

    async def answer(self, request: web.BaseRequest, target: Target, path: ResourcePath) -> web.StreamResponse:
        """The answer to a request on a pod's subresource."""
        plain = Target(target.resource, target.namespace, target.name)
        match path.subresource, request.method:
            case "log", "GET":
                return await self._log(request, plain)
            case "binding", "POST":
                return await self._bind(request, plain)
            case "eviction", "POST":
                return await self._evict(request, plain)
            case "portforward", ("GET" | "POST"):
                return await self._forward_ports(request, plain)
            case (("log" | "binding" | "eviction" | "portforward"), _):
                raise method_not_allowed()
            case (("exec" | "attach" | "ephemeralcontainers"), _):
                raise ApiError(
                    501,
                    "NotImplemented",
                    f"{path.subresource} is not offered by the local cluster: its pods are processes of this machine, "
                    f"and {target.name} listens on its own address (kubectl get pod {target.name} -o wide)",
                )
        raise no_such_resource()

    async def _forward_ports(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        status = self._objects.get(target).obj.get("status") or {}
        if status.get("phase") != "Running" or not status.get("podIP"):
            raise bad_request(
                f"unable to forward port because pod is not running. Current status={status.get('phase')}"
            )
        return await self._forwards.answer(request, target.name, status["podIP"])

    async def _bind(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        binding = await read_object(request, self._settings)
        node = (binding.get("target") or {}).get("name")
        if not node:
            raise bad_request("target.name is required: the name of the node to bind the pod to")
        current = self._objects.get(target)
        if current.obj["spec"].get("nodeName"):
            raise conflict(
                target.resource,
                target.name,
                f'pod {target.name} is already assigned to node "{current.obj["spec"]["nodeName"]}"',
            )
        if current.obj["metadata"].get("deletionTimestamp"):
            raise conflict(
                target.resource, target.name, f"pod {target.name} is being deleted, cannot be assigned to a host"
            )
        pod = copy_json(current.obj)
        pod["spec"]["nodeName"] = node
        options = write_options(request.query, request.headers.get("User-Agent", ""), "CreateOptions")
        outcome = self._objects.store_change(target, current, pod, options, [])
        await self._objects.store.committed(outcome.rv)
        return _success(201)

    async def _evict(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        eviction = await read_object(request, self._settings)
        options = delete_options(request.query, eviction.get("deleteOptions") or {})
        self._check_budgets(target)
        outcome, _ = self._objects.delete(target, options)
        await self._objects.store.committed(outcome.rv)
        return _success(201)

    def _check_budgets(self, target: Target) -> None:
        """Refuse an eviction that a disruption budget does not allow; counted anew, so that none comes twice."""
        pod, store = self._objects.get(target).obj, self._objects.store
        phase = (pod.get("status") or {}).get("phase")
        if phase != "Running" or pod["metadata"].get("deletionTimestamp"):
            return
        stored_budgets = store.all("poddisruptionbudgets.policy", target.namespace)
        guarding = [stored.obj for stored in stored_budgets if guards(stored.obj, pod)]
        if len(guarding) > 1:
            raise ApiError(
                500,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )
        for budget in guarding:
            counts = count(budget, [stored.obj for stored in store.all("pods.", target.namespace)], self._find_scaled)
            if not may_go(budget, pod, counts):
                raise _refused_by(budget, counts)

    def _find(self, target: Target) -> Json | None:
        stored = self._objects.store.get(target.resource.key, target.namespace, target.name)
        return stored.obj if stored is not None else None

    def _find_scaled(self, kind: str, namespace: str, name: str) -> Json | None:
        keys = {"Deployment": "deployments.apps", "ReplicaSet": "replicasets.apps"}
        stored = self._objects.store.get(keys[kind], namespace, name) if kind in keys else None
        return stored.obj if stored is not None else None

    async def _log(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        pod = self._objects.get(target).obj
        try:
            log = PodLog(
                pod,
                LogOptions.parse(request.query),
                folder=self._settings.pod_logs,
                find_pod=lambda: self._find(target),
            )
            log.check()
        except LogError as error:
            raise bad_request(str(error)) from error
        return await log.answer(request)


def _refused_by(budget: Json, counts: Budget) -> ApiError:
    name = budget["metadata"]["name"]
    message = f"The disruption budget {name} needs {counts.desired} healthy pods and has {counts.healthy} currently"
    return ApiError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        {"causes": [{"reason": "DisruptionBudget", "message": message}]},
    )


def _success(code: int) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    return json_response(body, status=code)
