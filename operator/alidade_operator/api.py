"""A thin client of the Kubernetes API: the few calls that the operator makes, over one bounded connection pool."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from alidade_crds import GROUP, VERSION
from alidade_operator.metrics import API_CALLS

FIELD_MANAGER = "alidade-operator"
# One page of a listing; 500 is what kubectl asks for.
PAGE_SIZE = 500
REQUEST_TIMEOUT_S = 30.0
# Of a call for which the API server has no room (429); it says after how long, which is a second.
BUSY_TRIES, LONGEST_PAUSE_S = 5, 5.0
# Of one that fails in the server; creations are not among them, since they may have been carried out.
FAILED_TRIES, FAILED_PAUSE_S = 3, 0.1
REPEATABLE = ("GET", "PATCH", "DELETE")

JsonObject = dict[str, Any]
"""An object as the API server speaks it."""


@dataclass(frozen=True)
class Kind:
    """A kind of the API: where it is found and how it is called."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """`group/version`, or only the version for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of the collection, or of one object or its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


FINE_TUNE_JOB = Kind(GROUP, VERSION, "finetunejobs", "FineTuneJob")
REWARD_MODEL = Kind(GROUP, VERSION, "rewardmodels", "RewardModel")
ALIGNMENT_RUN = Kind(GROUP, VERSION, "alignmentruns", "AlignmentRun")
EVALUATION = Kind(GROUP, VERSION, "evaluations", "Evaluation")
MODEL_SERVE = Kind(GROUP, VERSION, "modelserves", "ModelServe")
PARENT_KINDS = (FINE_TUNE_JOB, REWARD_MODEL, ALIGNMENT_RUN, EVALUATION, MODEL_SERVE)

PYTORCH_JOB = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
TRAIN_JOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
TRAINING_RUNTIME = Kind("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "TrainingRuntime")
JOB = Kind("batch", "v1", "jobs", "Job")
POD = Kind("", "v1", "pods", "Pod")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
SERVICE = Kind("", "v1", "services", "Service")
DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
AUTOSCALER = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SCALED_OBJECT = Kind("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
POD_MONITOR = Kind("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENT = Kind("", "v1", "events", "Event")
SECRET = Kind("", "v1", "secrets", "Secret")
WEBHOOK_CONFIGURATION = Kind(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
)
WORKLOADS = (
    Kind("kueue.x-k8s.io", "v1beta2", "workloads", "Workload"),
    Kind("kueue.x-k8s.io", "v1beta1", "workloads", "Workload"),
)
"""Kueue's, the newest version first: 0.14 and older have the other one only."""
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
POLICY_KINDS = (DISRUPTION_BUDGET, NETWORK_POLICY, AUTOSCALER, SCALED_OBJECT, POD_MONITOR)
"""What a served model's pods have around them."""
CHILD_KINDS = (PYTORCH_JOB, TRAIN_JOB, JOB, POD, DEPLOYMENT, SERVICE, *POLICY_KINDS)
OPTIONAL_KINDS = (SCALED_OBJECT, POD_MONITOR)
"""Kinds that a cluster may well do without; only who asks for them is told."""


class ApiError(Exception):
    """The API server refused a call, or could not be reached (status 0)."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after_s: float | None = None) -> None:
        """retry_after_s: when the API server wants to be asked again what it has not looked at."""
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def not_found(self) -> bool:
        """Whether the object, or its kind, does not exist."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """Whether an object of that name is already there."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Whether the object is no longer the one that was meant."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def namespace_terminating(self) -> bool:
        """Whether the namespace is being deleted, so that nothing can be made in it."""
        return self.status == 403 and "because it is being terminated" in self.message


@dataclass(frozen=True)
class Connection:
    """How the API server is reached; headers carry the credentials."""

    server: str
    headers: Mapping[str, str]
    ssl: ssl.SSLContext | bool
    proxy: str | None = None


class Api:
    """Calls of the Kubernetes API as field manager `alidade-operator`. Every failed call raises ApiError."""

    def __init__(self, login: Callable[[], Connection], *, connections: int) -> None:
        self._login = login
        self._connection = login()
        connector = aiohttp.TCPConnector(limit=connections, ssl=self._connection.ssl)
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> JsonObject:
        """One object; namespace: None for one of the cluster."""
        return await self._call("GET", kind, kind.path(namespace, name))

    async def list(self, kind: Kind, *, namespace: str | None, selector: str = "") -> tuple[list[JsonObject], str]:
        """All objects, page by page, and the resource version they had."""
        items: list[JsonObject] = []
        params = {"limit": str(PAGE_SIZE)} | ({"labelSelector": selector} if selector else {})
        while True:
            page = await self._call("GET", kind, kind.path(namespace), params=params)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", "0"))
            params = params | {"continue": metadata["continue"]}

    async def create(self, kind: Kind, namespace: str, body: JsonObject) -> JsonObject:
        """Creates an object; one of that name that is already there is an ApiError with `already_exists`."""
        params = {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", kind, kind.path(namespace), params=params, body=body)

    async def apply(
        self, kind: Kind, namespace: str, body: JsonObject, *, subresource: str | None = None
    ) -> JsonObject:
        """Server-side apply: the fields of body become ours, fields of others stay; no change is no write."""
        path = kind.path(namespace, body["metadata"]["name"], subresource)
        params = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call(
            "PATCH", kind, path, params=params, body=body, content_type="application/apply-patch+yaml"
        )

    async def merge(self, kind: Kind, namespace: str, body: JsonObject) -> JsonObject:
        """Changes the fields of body, those that are null are taken away; an object of another uid is a `conflict`."""
        path = kind.path(namespace, body["metadata"]["name"])
        params = {"fieldManager": FIELD_MANAGER}
        return await self._call(
            "PATCH", kind, path, params=params, body=body, content_type="application/merge-patch+json"
        )

    async def replace(self, kind: Kind, namespace: str | None, body: JsonObject) -> JsonObject:
        """Writes an object whole; a resourceVersion in it that is not the newest is an ApiError with `conflict`."""
        return await self._call("PUT", kind, kind.path(namespace, body["metadata"]["name"]), body=body)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> JsonObject:
        """Deletes the object of that uid, and only that one; what it owns is collected in the background."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        return await self._call("DELETE", kind, kind.path(namespace, name), body=body | {"preconditions": {"uid": uid}})

    async def _call(
        self,
        method: str,
        kind: Kind,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: JsonObject | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        def send() -> Awaitable[JsonObject]:
            return self._send(method, kind, path, params=params, body=body, content_type=content_type)

        tries = 1
        while True:
            try:
                return await send()
            except ApiError as error:
                if error.status == 401:
                    # Bound service account tokens expire within the hour; the file holds the next one by then.
                    self._connection = self._login()
                    return await send()
                pause_s = _pause_s(method, error, tries)
                if pause_s is None:
                    raise
            await self._pause(pause_s)
            tries += 1

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _send(
        self,
        method: str,
        kind: Kind,
        path: str,
        *,
        params: Mapping[str, str] | None,
        body: JsonObject | None,
        content_type: str,
    ) -> JsonObject:
        headers = {**self._connection.headers, "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        url = self._connection.server.rstrip("/") + path
        try:
            async with self._session.request(
                method, url, params=params, data=data, headers=headers, proxy=self._connection.proxy
            ) as response:
                content = await response.read()
                status, wait = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            API_CALLS.labels(method, kind.plural, "0").inc()
            raise ApiError(
                0, "Unreachable", f"the API server did not answer: {error or type(error).__name__}"
            ) from error
        API_CALLS.labels(method, kind.plural, str(status)).inc()
        return _parse(status, content, retry_after_s=float(wait) if status == 429 and wait.isdecimal() else None)


def _pause_s(method: str, error: ApiError, tries: int) -> float | None:
    """After how long a call is made again that has failed so many times; None: not here.

    A plan needs all of its calls: made again as a whole, one of seven hardly ever gets through a server that fails
    every fifth.
    """
    if error.retry_after_s is not None and tries < BUSY_TRIES:
        return min(error.retry_after_s, LONGEST_PAUSE_S)
    if error.status >= 500 and method in REPEATABLE and tries < FAILED_TRIES:
        return FAILED_PAUSE_S
    return None


def _parse(status: int, content: bytes, *, retry_after_s: float | None = None) -> JsonObject:
    """The object of an answer; raises ApiError for a refusal and for what is not JSON."""
    try:
        answer = json.loads(content) if content else {}
    except ValueError:
        answer = {"message": content[:200].decode(errors="replace")}
        status = status if status >= 400 else 502
    if status >= 400:
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
        raise ApiError(status, reason, message, retry_after_s=retry_after_s)
    assert isinstance(answer, dict), "the API server answers with objects"
    return answer
