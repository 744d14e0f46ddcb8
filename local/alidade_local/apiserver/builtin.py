"""The built-in resources that the server offers."""

from functools import partial
from typing import Any

from alidade_local.apiserver import event_versions
from alidade_local.apiserver.builtin_schemas import builtin_schema
from alidade_local.apiserver.custom_resources import DEFINITION
from alidade_local.apiserver.kinds import PLAIN, UNCOUNTED, KindRules
from alidade_local.apiserver.kinds_apps import DEPLOYMENT, JOB, REPLICA_SET
from alidade_local.apiserver.kinds_core import (
    CONFIG_MAP,
    EVENT,
    LEASE,
    NAMESPACE,
    PERSISTENT_VOLUME_CLAIM,
    ROLE,
    ROLE_BINDING,
    SECRET,
)
from alidade_local.apiserver.kinds_pods import POD
from alidade_local.apiserver.kinds_policies import (
    HORIZONTAL_POD_AUTOSCALER,
    NETWORK_POLICY,
    POD_DISRUPTION_BUDGET,
)
from alidade_local.apiserver.resources import ALL_VERBS, Resource, ScalePaths

_SCALE = ScalePaths(selector=".spec.selector")
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    *(
        f"involvedObject.{name}"
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
    "reason",
    "reportingComponent",
    "source",
    "type",
)


def _resource(
    api_version: str,
    plural: str,
    kind: str,
    rules: KindRules = PLAIN,
    *,
    namespaced: bool = True,
    short: tuple[str, ...] = (),
    status: bool = False,
    in_all: bool = False,
    **more: Any,
) -> Resource:
    group, _, version = api_version.rpartition("/")
    return Resource(
        group=group,
        version=version,
        plural=plural,
        singular=kind.lower(),
        kind=kind,
        namespaced=namespaced,
        rules=rules,
        load_schema=partial(builtin_schema, group, version, kind),
        short_names=short,
        categories=("all",) if in_all else (),
        has_status=status,
        **more,
    )


_CORE_EVENTS = _resource("v1", "events", "Event", EVENT, short=("ev",), selectable_fields=_EVENT_FIELDS)


def builtin_resources(service: KindRules) -> list[Resource]:
    """All of them, in the order in which discovery shows them. service: the rules of Services."""
    return [*_core(service), *_workloads(), *_policies(), *_cluster()]


def _core(service: KindRules) -> list[Resource]:
    return [
        _resource(
            "v1",
            "namespaces",
            "Namespace",
            NAMESPACE,
            namespaced=False,
            short=("ns",),
            status=True,
            selectable_fields=("status.phase",),
            verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
        ),
        _resource("v1", "pods", "Pod", POD, short=("po",), status=True, in_all=True, selectable_fields=_POD_FIELDS),
        _resource(
            "v1",
            "services",
            "Service",
            service,
            short=("svc",),
            status=True,
            in_all=True,
            selectable_fields=("spec.clusterIP", "spec.type"),
        ),
        _resource("v1", "endpoints", "Endpoints", UNCOUNTED, short=("ep",)),
        _resource("v1", "configmaps", "ConfigMap", CONFIG_MAP, short=("cm",)),
        _resource("v1", "secrets", "Secret", SECRET, selectable_fields=("type",)),
        _resource("v1", "serviceaccounts", "ServiceAccount", UNCOUNTED, short=("sa",)),
        _resource(
            "v1",
            "persistentvolumeclaims",
            "PersistentVolumeClaim",
            PERSISTENT_VOLUME_CLAIM,
            short=("pvc",),
            status=True,
        ),
        _resource(
            "v1", "persistentvolumes", "PersistentVolume", UNCOUNTED, namespaced=False, short=("pv",), status=True
        ),
        _resource(
            "v1",
            "nodes",
            "Node",
            UNCOUNTED,
            namespaced=False,
            short=("no",),
            status=True,
            selectable_fields=("spec.unschedulable",),
        ),
        _CORE_EVENTS,
        _resource("v1", "resourcequotas", "ResourceQuota", UNCOUNTED, short=("quota",), status=True),
        _resource("v1", "limitranges", "LimitRange", UNCOUNTED, short=("limits",)),
        _resource("v1", "podtemplates", "PodTemplate"),
    ]


def _workloads() -> list[Resource]:
    return [
        _resource(
            "apps/v1",
            "deployments",
            "Deployment",
            DEPLOYMENT,
            short=("deploy",),
            status=True,
            in_all=True,
            scale=_SCALE,
        ),
        _resource(
            "apps/v1",
            "replicasets",
            "ReplicaSet",
            REPLICA_SET,
            short=("rs",),
            status=True,
            in_all=True,
            scale=_SCALE,
            selectable_fields=("status.replicas",),
        ),
        _resource("batch/v1", "jobs", "Job", JOB, status=True, in_all=True, selectable_fields=("status.successful",)),
        _resource(
            "autoscaling/v2",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            HORIZONTAL_POD_AUTOSCALER,
            short=("hpa",),
            status=True,
            in_all=True,
        ),
        _resource("coordination.k8s.io/v1", "leases", "Lease", LEASE),
        _resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
        _resource(
            "events.k8s.io/v1",
            "events",
            "Event",
            EVENT,
            short=("ev",),
            selectable_fields=_EVENT_FIELDS,
            stored_view=_CORE_EVENTS,
            convert_in=event_versions.to_core,
            convert_out=event_versions.from_core,
        ),
    ]


def _policies() -> list[Resource]:
    return [
        _resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", NETWORK_POLICY, short=("netpol",)),
        _resource("networking.k8s.io/v1", "ingresses", "Ingress", short=("ing",), status=True),
        _resource(
            "policy/v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
            POD_DISRUPTION_BUDGET,
            short=("pdb",),
            status=True,
        ),
        _resource("rbac.authorization.k8s.io/v1", "roles", "Role", ROLE),
        _resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", ROLE_BINDING),
        _resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", ROLE, namespaced=False),
        _resource(
            "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", ROLE_BINDING, namespaced=False
        ),
    ]


def _cluster() -> list[Resource]:
    return [
        _resource("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", namespaced=False, short=("pc",)),
        _resource("storage.k8s.io/v1", "storageclasses", "StorageClass", UNCOUNTED, namespaced=False, short=("sc",)),
        _resource(
            "admissionregistration.k8s.io/v1",
            "mutatingwebhookconfigurations",
            "MutatingWebhookConfiguration",
            namespaced=False,
        ),
        _resource(
            "admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations",
            "ValidatingWebhookConfiguration",
            namespaced=False,
        ),
        _resource(
            "apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            DEFINITION,
            namespaced=False,
            short=("crd", "crds"),
            status=True,
        ),
    ]
