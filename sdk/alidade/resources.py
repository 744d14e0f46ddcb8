"""The resources of one kind: what kubectl does with them, with types."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from alidade import state
from alidade.errors import NotFoundError, ResourceFailedError, UnreachableError, WaitTimeoutError, told
from alidade.pods import newest, present_stage, selector_of_logs
from alidade.state import Body
from alidade_crds import API_VERSION, GROUP, VERSION
from alidade_crds.crd import KINDS, Kind

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

SpecT = TypeVar("SpecT", bound=BaseModel)
StatusT = TypeVar("StatusT", bound=BaseModel)

FIELD_MANAGER = "alidade-sdk"
# The API server ends a watch after a while; this is well below what load balancers take for idle.
_WATCH_S = 240
# A watch of hours outlives an API server that starts anew.
_PATIENCE_S, _PAUSE_S = 60.0, 1.0
_GONE = 410


class _TooOldError(Exception):
    """What was seen last is older than what the API server remembers."""


@dataclass(frozen=True)
class Resource(Generic[SpecT, StatusT]):
    """One resource as it was when it was read."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    spec: SpecT
    status: StatusT
    body: Body
    """As the API has it."""

    @property
    def has_succeeded(self) -> bool:
        """Whether it has its result; of a ModelServe, whether every replica serves its spec."""
        return state.has_succeeded(self.kind, self.body)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without a result."""
        return state.has_failed(self.kind, self.body)


@dataclass(frozen=True)
class Change(Generic[SpecT, StatusT]):
    """What a watch tells."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: Resource[SpecT, StatusT]


class Resources(Generic[SpecT, StatusT]):
    """The resources of a kind in one namespace."""

    def __init__(self, kind: Kind, spec: type[SpecT], status: type[StatusT], namespace: str, api: "ApiClient") -> None:
        from kubernetes import client

        self.kind = kind
        self._spec, self._status = spec, status
        self._namespace = namespace
        self._api = api
        self._objects = client.CustomObjectsApi(api)
        self._place = (GROUP, VERSION, namespace, kind.plural)

    def get(self, name: str) -> Resource[SpecT, StatusT]:
        """One resource. Raises NotFoundError."""
        with told(f"{self.kind.kind} {name} in {self._namespace}"):
            return self._resource(self._objects.get_namespaced_custom_object(*self._place, name))

    def list(self, labels: str = "") -> list[Resource[SpecT, StatusT]]:
        """All, or those whose labels a selector takes."""
        with told(f"{self.kind.plural} in {self._namespace}"):
            found = self._objects.list_namespaced_custom_object(*self._place, label_selector=labels)
        return [self._resource(body) for body in found["items"]]

    def apply(
        self,
        name: str,
        spec: SpecT | Mapping[str, Any],
        *,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
        force: bool = False,
    ) -> Resource[SpecT, StatusT]:
        """Makes the resource, or makes it read so: a server-side apply, which leaves what others have set.

        spec: typed, or as in YAML. dry_run: the API server checks everything, keeps nothing. force: takes over fields
        that somebody else has set. Raises RefusedError with the API server's words, which name the field.
        """
        # Only what was set: the rest stays the cluster's defaults, and others' to set.
        if isinstance(spec, BaseModel):
            written = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
        else:
            written = dict(spec)
        body = {
            "apiVersion": API_VERSION,
            "kind": self.kind.kind,
            "metadata": {"name": name, "namespace": self._namespace, "labels": dict(labels or {})},
            "spec": written,
        }
        with told(f"{self.kind.kind} {name} in {self._namespace}"):
            return self._resource(self._send_apply(name, body, dry_run=dry_run, force=force))

    def _send_apply(self, name: str, body: Body, *, dry_run: bool, force: bool) -> Body:
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        # By its path: the client's own method knows no server-side apply.
        found: Body = self._api.call_api(
            f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/{self.kind.plural}/{name}",
            "PATCH",
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": "application/apply-patch+yaml"},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
        )
        return found

    def delete(self, name: str) -> None:
        """Deletes it, and with it its jobs; models stay. Raises NotFoundError."""
        with told(f"{self.kind.kind} {name} in {self._namespace}"):
            self._objects.delete_namespaced_custom_object(*self._place, name)

    def watch(self, name: str = "", *, timeout_s: float | None = None) -> Iterator[Change[SpecT, StatusT]]:
        """What there is, then what changes, for as long as it is asked or until the time is over.

        name: of the one that is watched; empty for all. An API server that starts anew meanwhile is waited for.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        version, has_heard, silent_since = "", False, math.inf
        while (now := time.monotonic()) < deadline:
            try:
                for event in self._events(name, version, max(1, int(min(deadline - now, _WATCH_S)))):
                    version, has_heard, silent_since = event["object"]["metadata"]["resourceVersion"], True, math.inf
                    yield Change(event["type"], self._resource(event["object"]))
                has_heard, silent_since = True, math.inf
            except _TooOldError:
                version = ""  # everything is told anew
            except UnreachableError:
                silent_since = min(silent_since, time.monotonic())
                if not has_heard or time.monotonic() - silent_since > _PATIENCE_S:
                    raise
                time.sleep(_PAUSE_S)

    def _events(self, name: str, version: str, timeout_s: int) -> Iterator[Body]:
        """The events of one watch. Raises _TooOldError when the version is no longer known."""
        from kubernetes import watch
        from kubernetes.client import ApiException

        options = {"field_selector": f"metadata.name={name}"} if name else {}
        with told(f"{self.kind.plural} in {self._namespace}"):
            try:
                yield from watch.Watch().stream(
                    self._objects.list_namespaced_custom_object,
                    *self._place,
                    resource_version=version or None,
                    timeout_seconds=timeout_s,
                    **options,
                )
            except ApiException as error:
                if error.status == _GONE:
                    raise _TooOldError from error
                raise

    def wait(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Resource[SpecT, StatusT]], None] | None = None,
    ) -> Resource[SpecT, StatusT]:
        """The resource once it has its result, or serves its spec.

        on_change: is told of every state meanwhile. Raises NotFoundError, ResourceFailedError, WaitTimeoutError.
        """
        last = self.get(name)
        for change in self._states(last, timeout_s):
            last = change
            if on_change is not None:
                on_change(last)
            if last.has_succeeded:
                return last
            if last.has_failed:
                reason, message = state.failure(last.body)
                raise ResourceFailedError(f"{self.kind.kind} {name} failed: {message}", reason)
        why = state.why_not_yet(self.kind.kind, last.body)
        raise WaitTimeoutError(f"{self.kind.kind} {name} has not finished after {timeout_s:g} s; {why}")

    def _states(self, first: Resource[SpecT, StatusT], timeout_s: float | None) -> Iterator[Resource[SpecT, StatusT]]:
        yield first
        for change in self.watch(first.name, timeout_s=timeout_s):
            if change.type == "DELETED":
                raise NotFoundError(f"{self.kind.kind} {first.name} was deleted meanwhile")
            yield change.resource

    def logs(self, name: str, *, follow: bool = False) -> Iterator[str]:
        """Lines of the log: of the present attempt's first process, of the newest replica, of a run's present stage.

        Raises NotFoundError, with the reason, while there is none.
        """
        from kubernetes import client

        resource = self.get(name)
        stage = present_stage(resource.body)
        if stage is not None:
            kind = next(one for one in KINDS if one.kind == stage[0])
            others: Resources[Any, Any] = Resources(kind, kind.spec, kind.status, self._namespace, self._api)
            yield from others.logs(stage[1], follow=follow)
            return
        core = client.CoreV1Api(self._api)
        selector = selector_of_logs(self.kind.kind, name, resource.body)
        with told(f"the log of {self.kind.kind} {name}"):
            pods = core.list_namespaced_pod(self._namespace, label_selector=selector).items
            pod = newest(pods, self.kind.kind, name, resource.body)
            stream = core.read_namespaced_pod_log(
                pod.metadata.name,
                self._namespace,
                container=pod.spec.containers[0].name,
                follow=follow,
                _preload_content=False,
            )
            for line in stream:
                yield line.decode(errors="replace").rstrip("\n")

    def _resource(self, body: Body) -> Resource[SpecT, StatusT]:
        metadata = body["metadata"]
        return Resource(
            kind=self.kind.kind,
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=metadata["generation"],
            spec=self._spec.model_validate(body["spec"]),
            status=self._status.model_validate(body.get("status") or {}),
            body=body,
        )
