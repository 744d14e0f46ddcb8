"""The values of the Helm chart: values.yaml, its schema and its reference page are made from these types."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, create_model

from alidade_crds.base import Name, Quantity, Spec
from alidade_operator.config import OperatorConfig

Object = dict[str, Any]
"""A part of a Kubernetes object, taken over as it is."""
Duration = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(s|m|h|d)$")]
"""A time as Prometheus writes it, such as `30s` or `2h`."""

SET_BY_CHART = frozenset(
    {
        "admission",
        "namespaces",
        "leader_election",
        "leader_namespace",
        "operator_namespace",
        "monitoring_namespace",
    }
)
"""Fields of the operator's configuration that follow from other values."""


def _settable() -> type[Spec]:
    """The operator's configuration but for what the chart sets. Nothing has a default here: the operator's own holds,
    so that an upgrade brings the images of its release."""
    fields: dict[str, Any] = {
        name: (Annotated[field.annotation, Field(), *field.metadata] | None, Field(None, description=field.description))
        for name, field in OperatorConfig.model_fields.items()
        if name not in SET_BY_CHART
    }
    return create_model("Configuration", __base__=Spec, **fields)


Configuration = _settable()


class Image(Spec):
    """The operator's image."""

    repository: str = Field("alidade/operator", min_length=1, description="Registry and name.")
    tag: str = Field("", max_length=128, description="Tag; empty for the chart's appVersion.")
    digest: str = Field("", pattern="^(sha256:[0-9a-f]{64})?$", description="Digest, which wins over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When it is pulled.")


class ServiceAccount(Spec):
    """The operator's account."""

    create: bool = Field(True, description="Whether the chart makes it.")
    name: str = Field("", max_length=253, description="Its name; empty for the operator's.")
    annotations: dict[str, str] = Field({}, description="Its annotations.")


class Rbac(Spec):
    """What the operator's account may do, and what users may."""

    create: bool = Field(True, description="Whether the chart makes the operator's roles and bindings.")
    user_roles: bool = Field(
        True, description="Whether the cluster's roles view, edit and admin get the kinds of alidade.dev added."
    )


class Crds(Spec):
    """The resource types."""

    install: bool = Field(
        True, description="Whether this release brings and upgrades them; one release of a cluster does."
    )
    keep: bool = Field(True, description="Whether they, and with them every resource, outlive `helm uninstall`.")


class Workspace(Spec):
    """The claim that takes outputs without an address, config.workspaceClaim, in namespaces of your choice."""

    namespaces: list[Name] = Field([], description="Namespaces that get one; it outlives `helm uninstall`.")
    storage_class_name: str = Field("", max_length=253, description="Storage class; empty for the cluster's default.")
    access_modes: list[Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]] = Field(
        ["ReadWriteMany"], min_length=1, description="ReadWriteOnce serves where all pods share one node."
    )
    size: Quantity = Field("500Gi", description="Storage that is asked for.")


class Issuer(Spec):
    """What of cert-manager signs."""

    name: str = Field("", max_length=253, description="Its name; empty for one that the chart makes.")
    kind: Literal["Issuer", "ClusterIssuer"] = Field("Issuer", description="An Issuer is of the release's namespace.")


class CertManager(Spec):
    """Certificates by cert-manager instead of by the operator itself."""

    enabled: bool = Field(False, description="Whether the certificate is cert-manager's.")
    issuer: Issuer = Field(Issuer(), description="What of cert-manager signs.")


class Webhook(Spec):
    """The webhook by which `kubectl apply` says at once what the condition Accepted would say."""

    enabled: bool = Field(
        False, description="Whether there is one; it takes the right to write its own configuration of the cluster."
    )
    port: int = Field(9443, ge=1024, le=65535, description="Port of the operator's pods that the API server asks.")
    failure_policy: Literal["Ignore", "Fail"] = Field(
        "Ignore", description="What happens while no operator answers: resources are let through, or refused."
    )
    timeout_seconds: int = Field(5, ge=1, le=30, description="How long the API server waits for an answer.")
    cert_manager: CertManager = Field(CertManager(), description="Certificates by cert-manager.")


class DisruptionBudget(Spec):
    """Keeps a replica while nodes are drained; made for two replicas or more."""

    enabled: bool = Field(True, description="Whether it is made.")


class NetworkPolicy(Spec):
    """What reaches the operator, and what it reaches: DNS, the API server, its jobs' and servers' pods."""

    enabled: bool = Field(True, description="Whether it is made.")
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        [443, 6443], min_length=1, description="Ports of the API server, before and behind its Service."
    )
    webhook_cidrs: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]] = Field(
        [],
        description="Addresses from which the API server asks the webhook; no other is let in then. Empty for any.",
    )
    extra_egress: list[Object] = Field([], description="Further egress rules, for a proxy for instance.")


class JobNetworkPolicy(Spec):
    """What reaches the pods that train, measure and quantize, and what they reach: one another, served models of their
    namespace, and what is public."""

    namespaces: list[Name] = Field([], description="Namespaces that get one.")
    closed: list[Annotated[str, StringConstraints(pattern=r"^[0-9.]+/[0-9]{1,2}$")]] = Field(
        ["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"],
        description="Networks that are not public: pods, nodes, metadata services. Those of IPv6 always are closed.",
    )
    extra_egress: list[Object] = Field([], description="Further egress rules, for a judge or a bucket in the cluster.")


class Monitors(Spec):
    """What Prometheus is told to scrape."""

    operator: bool = Field(True, description="A ServiceMonitor for the operator.")
    jobs: bool = Field(True, description="PodMonitors for training and evaluation jobs.")
    servers: bool = Field(
        True,
        description="A PodMonitor for served models; not made where config.podMonitors has the operator make them.",
    )
    interval: Duration = Field("30s", description="Time between two scrapes.")


class Thresholds(Spec):
    """From where on alerts fire."""

    stalled_after_seconds: int = Field(
        1800, ge=60, description="A running job without a step or an iteration for as long, in seconds."
    )
    checkpoint_age_seconds: int = Field(
        7200, ge=60, description="A job that has run for as long and whose newest checkpoint is older, in seconds."
    )
    queued_after_seconds: int = Field(
        21600, ge=60, description="A resource that its queue has held back for longer, in seconds."
    )
    loss_spike_ratio: float = Field(3, gt=1, le=1000, description="Loss over the lowest of the last hour.")
    serving_objective: float = Field(
        0.99, ge=0.5, lt=1, description="Share of requests to a served model that are to be answered well."
    )
    first_token_seconds: float = Field(
        10, gt=0, description="95th percentile of the time to the first token, for a quarter of an hour, in seconds."
    )
    requests_waiting: float = Field(50, gt=0, description="Requests of a served model that wait, for ten minutes.")


class Rules(Spec):
    """Recording rules and alerts."""

    enabled: bool = Field(True, description="Whether they are made.")
    labels: dict[str, str] = Field({}, description="Further labels of every alert, to route it by.")
    disabled: list[str] = Field([], description="Alerts that are left out, by name.")
    runbook_url: str = Field(
        "docs/how-to/monitor.md", description="Page that alerts link to; the alert's name in lower case is the anchor."
    )
    thresholds: Thresholds = Field(Thresholds(), description="From where on alerts fire.")


class Dashboards(Spec):
    """Grafana's dashboards, as ConfigMaps that its sidecar finds by a label."""

    enabled: bool = Field(True, description="Whether they are made.")
    label: str = Field("grafana_dashboard", min_length=1, description="Label that the sidecar looks for.")
    label_value: str = Field("1", description="Its value.")
    folder: str = Field("Alidade", description="Folder that they are shown in; needs the sidecar's folderAnnotation.")
    folder_annotation: str = Field("grafana_folder", min_length=1, description="Annotation that names the folder.")


class Monitoring(Spec):
    """Metrics, alerts and dashboards, for the Prometheus operator and Grafana."""

    enabled: bool = Field(False, description="Whether any of this is made; needs the Prometheus operator's kinds.")
    labels: dict[str, str] = Field(
        {}, description="Labels by which your Prometheus selects monitors and rules, such as release: monitoring."
    )
    namespace: Name = Field("monitoring", description="Namespace of Prometheus, which network policies let scrape.")
    monitors: Monitors = Field(Monitors(), description="What Prometheus is told to scrape.")
    rules: Rules = Field(Rules(), description="Recording rules and alerts.")
    dashboards: Dashboards = Field(Dashboards(), description="Grafana's dashboards.")


class Values(Spec):
    """Values of the chart alidade."""

    name_override: str = Field("", max_length=50, description="Takes the place of the chart's name in names.")
    fullname_override: str = Field("", max_length=50, description="Takes the place of release and chart in names.")
    image: Image = Field(Image(), description="The operator's image.")
    image_pull_secrets: list[Name] = Field([], description="Secrets of the release's namespace that pull it.")
    replicas: int = Field(
        2, ge=1, le=5, description="Pods of the operator: one works, another takes over when it falls silent."
    )
    watch_namespaces: list[Name] = Field(
        [],
        description="Namespaces that are served, by Roles in each of them; empty for all, by one ClusterRole.",
    )
    config: Configuration = Field(  # type: ignore[valid-type]
        Configuration(),
        description="The operator's configuration: node pools, images and whatever else docs/reference/"
        "operator-configuration.md has. What is not set here is as that page says.",
    )
    crds: Crds = Field(Crds(), description="The resource types.")
    workspace: Workspace = Field(Workspace(), description="Claims that take outputs without an address.")
    service_account: ServiceAccount = Field(ServiceAccount(), description="The operator's account.")
    rbac: Rbac = Field(Rbac(), description="Roles and bindings.")
    webhook: Webhook = Field(Webhook(), description="What says at once what is wrong with a resource.")
    pod_disruption_budget: DisruptionBudget = Field(DisruptionBudget(), description="Keeps a replica in drains.")
    network_policy: NetworkPolicy = Field(
        NetworkPolicy(), description="What reaches the operator, and what it reaches."
    )
    job_network_policy: JobNetworkPolicy = Field(
        JobNetworkPolicy(), description="What reaches the pods of jobs, and what they reach."
    )
    monitoring: Monitoring = Field(Monitoring(), description="Metrics, alerts and dashboards.")
    resources: Object = Field(
        {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        description="Requests and limits of the operator's container.",
    )
    pod_security_context: Object = Field(
        {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        description="The pods' security context; the restricted Pod Security Standard is kept.",
    )
    security_context: Object = Field(
        {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        description="The containers' security context.",
    )
    pod_labels: dict[str, str] = Field({}, description="Further labels of the operator's pods.")
    pod_annotations: dict[str, str] = Field({}, description="Their annotations.")
    node_selector: dict[str, str] = Field({}, description="Labels of nodes that they run on.")
    tolerations: list[Object] = Field([], description="Taints of nodes that they tolerate.")
    affinity: Object = Field({}, description="Their affinity; without it they keep to different nodes where they can.")
    priority_class_name: str = Field("", max_length=253, description="Their priority class.")
    env: list[Object] = Field([], description="Further environment, such as HTTPS_PROXY, or KUBECONFIG.")
    volumes: list[Object] = Field([], description="Further volumes of the operator's pods.")
    volume_mounts: list[Object] = Field([], description="Where its container has them.")
