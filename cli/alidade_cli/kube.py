"""The resources of a cluster, read through the kubernetes client."""

import ipaddress
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alidade_cli.errors import ClusterSilent, CommandFailed
from alidade_crds import GROUP, VERSION
from alidade_crds.crd import KINDS, Kind
from alidade_local.service_ports import listening_ports

Resource = dict[str, Any]


def kind_named(word: str) -> Kind:
    """The kind that a word of the command line means: FineTuneJob, finetunejobs, ftj."""
    for kind in KINDS:
        if word.lower() in (kind.singular, kind.plural, kind.short_name):
            return kind
    known = ", ".join(f"{kind.kind} ({kind.short_name})" for kind in KINDS)
    raise CommandFailed(f"{word!r} is not a kind of Alidade; the kinds are {known}")


def parse_target(target: str, *, bare: str = "FineTuneJob") -> tuple[Kind, str]:
    """Kind and name of `KIND/NAME`. bare: the kind of a NAME alone."""
    word, slash, name = target.partition("/")
    if not slash:
        return kind_named(bare), word
    if not name:
        raise CommandFailed(f"{target!r} names no resource; write KIND/NAME, such as ftj/kbqa-sft")
    return kind_named(word), name


def kubeconfig_path() -> Path | None:
    """The kubeconfig that kubectl would take: $KUBECONFIG, else ~/.kube/config; None when there is none."""
    named = os.environ.get("KUBECONFIG")
    path = Path(named.split(os.pathsep)[0]) if named else Path.home() / ".kube" / "config"
    return path if path.is_file() else None


@dataclass(frozen=True)
class ApiAccess:
    """How programs other than the kubernetes client reach the API server; tls has the client's certificate, if any."""

    url: str
    token: str | None = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)


@dataclass(frozen=True)
class Cluster:
    """A cluster and the namespace that commands look at."""

    kubeconfig: Path
    namespace: str

    @classmethod
    def connect(cls, namespace: str | None, fallback: Path | None) -> "Cluster":
        """The cluster of the kubeconfig; where there is none, the local cluster's (`fallback`)."""
        from kubernetes import config

        path = kubeconfig_path() or fallback
        if path is None or not path.is_file():
            raise CommandFailed("no cluster: set KUBECONFIG, or start a cluster on this machine with `alidade up`")
        try:
            config.load_kube_config(str(path))
            _, active = config.list_kube_config_contexts(str(path))
        except config.ConfigException as error:
            raise CommandFailed(f"{path} is not a kubeconfig that can be used: {error}") from error
        return cls(path, namespace or active["context"].get("namespace", "default"))

    @cached_property
    def _objects(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi()

    @cached_property
    def _core(self) -> Any:
        from kubernetes import client

        return client.CoreV1Api()

    def read(self, kind: Kind, name: str) -> Resource:
        """One resource; CommandFailed when there is none."""
        found = self.find(kind, name)
        if found is None:
            raise CommandFailed(
                f"there is no {kind.kind} {name} in namespace {self.namespace}; `kubectl get alidade -A` lists what "
                "there is"
            )
        return found

    def find(self, kind: Kind, name: str) -> Resource | None:
        """One resource; None when there is none."""
        from kubernetes.client import ApiException

        with self._asking_for(f"{kind.kind} {name}"):
            try:
                found: Resource = self._objects.get_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, kind.plural, name
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return found

    def names(self, kind: Kind) -> list[str]:
        """Names of the namespace's resources of a kind."""
        with self._asking_for(kind.plural):
            found = self._objects.list_namespaced_custom_object(GROUP, VERSION, self.namespace, kind.plural)
        return [one["metadata"]["name"] for one in found["items"]]

    def loopback_address(self, service: str) -> str | None:
        """URL of a Service's first port where its address leads back to this machine, as on the local cluster."""
        from kubernetes.client import ApiException

        with self._asking_for(f"Service {service}"):
            try:
                spec = self._core.read_namespaced_service(service, self.namespace).spec
            except ApiException:
                # Who may not read it is led through the API server, which says so.
                return None
        try:
            is_here = ipaddress.ip_address(spec.cluster_ip or "").is_loopback
        except ValueError:  # none yet, or "None" of a headless service
            return None
        if not is_here:
            return None
        # Ports that may not be listened on without rights are found elsewhere at the same address.
        entries = [{"port": port.port, "protocol": port.protocol or "TCP"} for port in spec.ports]
        first = spec.ports[0].port
        return f"http://{spec.cluster_ip}:{listening_ports({'spec': {'ports': entries}}).get(first, first)}"

    def api_access(self) -> ApiAccess:
        """Address of the API server, and what it asks of clients."""
        from kubernetes import client

        known = client.Configuration.get_default_copy()
        authorization = known.get_api_key_with_prefix("authorization") or ""
        token = authorization.removeprefix("Bearer ") or None
        if not known.host.startswith("https://"):
            return ApiAccess(known.host, token, None)
        tls = ssl.create_default_context(cafile=known.ssl_ca_cert)
        if not known.verify_ssl:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if known.cert_file:
            tls.load_cert_chain(known.cert_file, known.key_file)
        return ApiAccess(known.host, token, tls)

    def pods(self, selector: str) -> list[Any]:
        """Pods of the namespace by label."""
        with self._asking_for("pods"):
            found: list[Any] = self._core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return found

    def log_lines(self, pod: str, container: str, *, follow: bool) -> Iterator[str]:
        """A container's log, line by line, to its end. CommandFailed while it has none."""
        with self._asking_for(f"the log of pod {pod}"):
            stream = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=container, follow=follow, _preload_content=False
            )
            for line in stream:
                yield line.decode(errors="replace").rstrip("\n")

    @contextmanager
    def _asking_for(self, what: str) -> Iterator[None]:
        """Turns what goes wrong with a call into CommandFailed."""
        from kubernetes.client import ApiException

        try:
            yield
        except ApiException as error:
            raise CommandFailed(self._sentence(error, what)) from error
        except _connection_errors() as error:
            raise ClusterSilent(f"the cluster of {self.kubeconfig} does not answer: {_last_cause(error)}") from error

    def _sentence(self, error: Any, what: str) -> str:
        if error.status in (401, 403):
            return f"you may not read {what} in namespace {self.namespace}: {error.reason}"
        return f"{what} cannot be read: {error.status} {_told(error.body) or error.reason}"


def _told(body: str | bytes | None) -> str:
    """The message of an API server's error; empty when it has none."""
    try:
        return str(json.loads(body or "{}").get("message", ""))
    except (ValueError, AttributeError):
        return ""


def _connection_errors() -> tuple[type[Exception], ...]:
    from urllib3.exceptions import HTTPError

    return (HTTPError, OSError)


def _last_cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rsplit(": ", 1)[-1]
