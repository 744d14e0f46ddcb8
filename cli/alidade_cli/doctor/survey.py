"""What is to be seen in a cluster, read once; nothing is judged here."""

import json
from dataclasses import dataclass, field
from typing import Any

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster
from alidade_crds import GROUP, VERSION

Json = dict[str, Any]

OPTIONAL_GROUPS = ("kueue.x-k8s.io", "monitoring.coreos.com", "keda.sh", "cert-manager.io")
_OPERATOR = "app.kubernetes.io/name=alidade,app.kubernetes.io/component=operator"
_LEASE = "alidade-operator"


@dataclass(frozen=True)
class Survey:
    """What was found. None stands for what the account may not look at; an empty list for what is not there."""

    version: str
    namespace: str
    own_kinds: frozenset[str]
    """Plurals of alidade.dev that the cluster knows."""
    training_kinds: frozenset[str]
    """Plurals of kubeflow.org and trainer.kubeflow.org."""
    groups: frozenset[str]
    """Names of API groups."""
    operators: list[Json] | None = None
    """Deployments."""
    configuration: Json | None = None
    """The operator's, from its ConfigMap; None where there is none to be seen."""
    leases: list[Json] | None = None
    nodes: list[Json] | None = None
    storage_classes: list[Json] | None = None
    claims: list[Json] | None = None
    """Of the namespace."""
    queues: list[Json] | None = None
    """Kueue's LocalQueues of the namespace."""
    webhooks: list[Json] | None = field(default=None)
    """ValidatingWebhookConfigurations."""


def survey(cluster: Cluster, read: "Reader | None" = None) -> Survey:
    """Looks at a cluster. Raises CommandFailed when it does not answer."""
    get = read or Reader(cluster)
    groups = frozenset(group["name"] for group in get.one("/apis")["groups"])
    core, own = f"/api/v1/namespaces/{cluster.namespace}", f"/apis/{GROUP}/{VERSION}"
    kueue = next((version for version in ("v1beta2", "v1beta1") if get.known(f"/apis/kueue.x-k8s.io/{version}")), None)
    queues = f"/apis/kueue.x-k8s.io/{kueue}/namespaces/{cluster.namespace}/localqueues"
    return Survey(
        version=str(get.one("/version")["gitVersion"]),
        namespace=cluster.namespace,
        own_kinds=get.plurals(own),
        training_kinds=get.plurals("/apis/kubeflow.org/v1") | get.plurals("/apis/trainer.kubeflow.org/v1alpha1"),
        groups=groups,
        operators=get.all("/apis/apps/v1/deployments", labelSelector=_OPERATOR),
        configuration=_configuration(get.all("/api/v1/configmaps", labelSelector=_OPERATOR)),
        leases=get.all("/apis/coordination.k8s.io/v1/leases", fieldSelector=f"metadata.name={_LEASE}"),
        nodes=get.all("/api/v1/nodes"),
        storage_classes=get.all("/apis/storage.k8s.io/v1/storageclasses"),
        claims=get.all(f"{core}/persistentvolumeclaims"),
        queues=get.all(queues) if kueue is not None else [],
        webhooks=get.all("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
    )


def _configuration(maps: list[Json] | None) -> Json | None:
    import yaml

    for one in maps or []:
        text = (one.get("data") or {}).get("operator.yaml")
        if text is not None:
            found: Json = yaml.safe_load(text) or {}
            return found
    return None


class Reader:
    """Reads paths of the API, as whoever the kubeconfig says."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def one(self, path: str) -> Json:
        """What is at a path that every API server has."""
        status, body = self._ask(path, {})
        if status != 200 or body is None:
            raise CommandFailed(f"the cluster of {self._cluster.kubeconfig} answers {status} to {path}")
        return body

    def known(self, path: str) -> bool:
        """Whether the cluster knows a group and version."""
        return self._ask(path, {})[0] == 200

    def plurals(self, path: str) -> frozenset[str]:
        """Kinds of a group and version by their plurals; none where the cluster does not know it."""
        _, body = self._ask(path, {})
        return frozenset(one["name"] for one in (body or {}).get("resources", []) if "/" not in one["name"])

    def all(self, path: str, **query: str) -> list[Json] | None:
        """Objects of a list; None where they may not be listed, empty where the cluster does not know them."""
        status, body = self._ask(path, query)
        if status in (401, 403):
            return None
        return list((body or {}).get("items", []))

    def _ask(self, path: str, query: dict[str, str]) -> tuple[int, Json | None]:
        from kubernetes import client
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            raw = client.ApiClient().call_api(
                path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
            )
        except ApiException as error:
            return int(error.status or 0), None
        except (HTTPError, OSError) as error:
            raise CommandFailed(f"the cluster of {self._cluster.kubeconfig} does not answer: {error}") from error
        return int(raw.status), json.loads(raw.data)
