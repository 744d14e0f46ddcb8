"""The operator's configuration: node pools, images and limits, from the YAML file that ALIDADE_CONFIG names."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from alidade_crds.base import Name, Quantity, Spec
from alidade_crds.blocks import Credential
from alidade_crds.contract import POD_IP_ENV
from alidade_crds.hosts import HostPolicy, entry_error

CONFIG_ENV = "ALIDADE_CONFIG"

TrainingBackend = Literal["PyTorchJob", "TrainJob"]


class ConfigError(ValueError):
    """The configuration file cannot be used; the message names file, field and what was found."""


class GangScheduling(Spec):
    """A scheduler that starts all pods of a job together or none: Volcano, or scheduler-plugins' coscheduling."""

    scheduler: str = Field(
        "volcano",
        min_length=1,
        max_length=63,
        description="schedulerName of the pods: volcano, or that of a scheduler with the plugin Coscheduling, such as "
        "scheduler-plugins-scheduler. The training operator of PyTorchJobs is started with the same "
        "--gang-scheduler-name.",
    )
    queue: Name | None = Field(None, description="Volcano's queue; default: its own.")
    timeout_s: int | None = Field(
        None, ge=1, description="Seconds that scheduler-plugins waits for the last pod of a job; default: its own."
    )

    @property
    def is_volcano(self) -> bool:
        """Whether it is Volcano."""
        return self.scheduler == "volcano"


class Proxy(Spec):
    """Proxies between the cluster and the outside."""

    http: str | None = Field(None, max_length=1024, description="HTTP_PROXY.")
    https: str | None = Field(None, max_length=1024, description="HTTPS_PROXY; default: http.")
    no_proxy: list[str] = Field(
        [],
        max_length=128,
        description="NO_PROXY beside this pod, *.svc, *.cluster.local and the metadata server, which it always holds.",
    )


class CaBundle(Spec):
    """Certificates that pods trust instead of their images'."""

    config_map: Name = Field(
        description="ConfigMap of the job's namespace, such as trust-manager keeps one in each. It replaces what "
        "images trust: it has to hold public authorities, too, where pods reach the internet."
    )
    key: str = Field("ca.crt", min_length=1, max_length=253, description="Its key that holds PEM certificates.")


class NodePool(Spec):
    """Nodes of one make: how pods get there, what they offer, and what they cost."""

    name: Name = Field(description="What spec.compute.nodePool says.")
    node_selector: dict[str, str] = Field({}, description="Labels of the pool's nodes.")
    tolerations: list[dict[str, Any]] = Field([], description="Tolerations of the pool's taints.")
    gpu_resource: str = Field("nvidia.com/gpu", description="Extended resource of the GPUs.")
    gpus_per_node: int = Field(0, ge=0, le=64, description="GPUs of each node; 0 for a pool without.")
    gpu_memory_gib: float | None = Field(None, gt=0, description="Memory of one GPU, in GiB, for the memory estimate.")
    cpu: Quantity | None = Field(None, description="CPU request of a worker that names none, in cores.")
    memory: Quantity | None = Field(None, description="Memory of a worker that names none, in bytes.")
    shm_size: Quantity = Field(
        "8Gi", description="Limit of /dev/shm, in bytes; what is used of it counts as the worker's memory."
    )
    price_per_gpu_hour: float | None = Field(None, ge=0, description="Price of one GPU for one hour.")
    currency: str = Field("USD", max_length=8, description="Currency of the price.")
    peak_tflops: float | None = Field(None, gt=0, description="Peak of one GPU in bf16, for the MFU metric.")
    env: list[dict[str, Any]] = Field([], description="Further environment of the workers, such as NCCL settings.")
    runtime_class_name: str | None = Field(None, description="RuntimeClass of the pods.")
    extra_resources: dict[str, Quantity] = Field(
        {},
        description="Further resources of each worker of a training job of several, such as rdma/hca: what their "
        "traffic with one another takes.",
    )
    affinity: dict[str, Any] = Field({}, description="Affinity of the pods, as a pod's spec.affinity.")
    topology_key: str | None = Field(
        None,
        max_length=316,
        description="Label of the nodes by which workers of one job prefer to be near one another, such as one for the "
        "rack.",
    )
    pod_annotations: dict[str, str] = Field(
        {}, description="Annotations of the pods, such as those that keep an autoscaler from moving them."
    )
    gang_scheduling: GangScheduling | None = Field(
        None, description="Scheduler that starts all pods of a job or none; default: the cluster's own."
    )
    service_account_name: Name | None = Field(
        None,
        description="ServiceAccount of the job's namespace that a cloud takes for an identity; default: the "
        "namespace's default. No pod gets its Kubernetes token.",
    )
    credentials: list[Credential] = Field(
        [], max_length=8, description="Secrets of the job's namespace with which pods reach models and data."
    )
    training_backend: TrainingBackend | None = Field(
        None, description="What a training job on the pool is; default: what it is on all pools."
    )
    termination_grace_s: int | None = Field(
        None,
        ge=1,
        le=3600,
        description="Seconds a stopped worker has to save its checkpoint; on spot nodes not more than their notice. "
        "Default: that of all pools.",
    )


class Admission(Spec):
    """The webhook that tells whoever applies a resource what its condition Accepted would say."""

    enabled: bool = Field(False, description="Whether every replica of the operator answers admission reviews.")
    host: str = Field("", description="Address of the webhook; empty as for metricsHost.")
    port: int = Field(9443, ge=0, le=65535, description="Its port; 0 takes a free one and logs it.")
    certificate_folder: str | None = Field(
        None,
        max_length=1024,
        description="Folder with tls.crt and tls.key, such as a Secret of cert-manager's, taken up again when they "
        "change; without, the operator signs a certificate itself.",
    )
    service: Name = Field(
        "alidade-webhook", description="Service in operatorNamespace that leads to it: the name that it signs for."
    )
    secret: Name = Field(
        "alidade-webhook-certificate",
        description="Secret in operatorNamespace through which replicas share the certificate that they have signed.",
    )
    configuration: Name = Field(
        "alidade", description="ValidatingWebhookConfiguration whose caBundle it keeps in step with that certificate."
    )


class Tracing(Spec):
    """Traces of runs: what they waited for, their attempts and their stages."""

    endpoint: str = Field(
        max_length=1024,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="Collector that takes OTLP over HTTP, such as http://otel-collector.monitoring:4318; /v1/traces is "
        "added where it has no path. Headers and certificates stand in OpenTelemetry's environment variables.",
    )
    service_name: str = Field("alidade", min_length=1, max_length=255, description="Service that the spans are of.")


class OperatorConfig(Spec):
    """All that can be set; every field has a default that works."""

    node_pools: list[NodePool] = Field(
        [NodePool(name="default")], min_length=1, description="The pools; the first is the default."
    )
    training_backend: TrainingBackend = Field(
        "PyTorchJob",
        description="What a training job is: a PyTorchJob for the Kubeflow training operator 1.9, or a TrainJob for "
        "Kubeflow Trainer 2. What runs already stays what it is.",
    )
    trainer_image: str = Field("alidade/trainer:0.1.0", description="Image of training containers that name none.")
    eval_image: str = Field("alidade/eval:0.1.0", description="Image of evaluation containers that name none.")
    serving_image: str = Field("alidade/serving:0.1.0", description="Image of embedded servers that name none.")
    vllm_image: str = Field("vllm/vllm-openai:v0.32.0", description="Image of vLLM servers that name none.")
    tgi_image: str = Field(
        "alidade/tgi:3.3.7",
        description="Image of text-generation-inference servers that name none: its own, opened to users but root.",
    )
    quantization_image: str = Field(
        "alidade/quantizer:0.1.0", description="Image of quantizations for GPUs: the trainer's, with their libraries."
    )
    runtime_adapters: bool = Field(
        False,
        description="Whether vLLM servers without keys load and unload adapters while they run, instead of being "
        "replaced; whoever reaches such a server can then do so, too.",
    )
    image_pull_secrets: list[Name] = Field([], description="Secrets of the job's namespace that pull the image.")
    workspace_claim: Name = Field("alidade-workspace", description="Claim that takes outputs without an address.")
    cache_claim: Name | None = Field(
        None,
        description="Claim of the job's namespace on which models and data of hf://, s3://, gs:// and http(s):// are "
        "kept, so that each is fetched once for all jobs; default: every pod fetches for itself.",
    )
    allow_file_uris: bool = Field(False, description="Whether file:// addresses are accepted (local cluster only).")
    allow_private_hosts: bool = Field(
        False,
        description="Whether addresses may point to loopback, private networks and names of the cluster; link-local "
        "hosts and the metadata services of clouds only by allowedHosts.",
    )
    allowed_hosts: list[str] = Field(
        [],
        max_length=256,
        description="Private hosts that addresses may point to all the same: names, *.DOMAIN, addresses, and networks "
        "such as 10.1.0.0/16.",
    )
    run_as_user: int = Field(1000, ge=1, description="User and group of the training processes.")
    termination_grace_s: int = Field(
        120, ge=1, le=3600, description="Seconds a stopped worker has to save its checkpoint."
    )
    retry_delay_s: float = Field(10, gt=0, description="Seconds before the second attempt; doubles with each.")
    retry_delay_max_s: float = Field(300, gt=0, description="Longest delay between two attempts, in seconds.")
    proxy: Proxy | None = Field(None, description="Proxies that pods use to fetch models and data.")
    ca_bundle: CaBundle | None = Field(None, description="Certificates that pods trust when they do; default: images'.")
    network_policies: bool = Field(
        True, description="Whether NetworkPolicies let traffic to served models' pods through on their port only."
    )
    operator_namespace: Name = Field(
        "alidade-system", description="Namespace of the operator, which those let ask replicas for their load."
    )
    monitoring_namespace: Name = Field("monitoring", description="Namespace of Prometheus, which those let scrape.")
    pod_monitors: bool = Field(False, description="Whether PodMonitors tell Prometheus to scrape served models' pods.")
    prometheus_url: str | None = Field(
        None, max_length=1024, description="Prometheus that KEDA asks for the load of served models."
    )
    progress_interval_s: float = Field(2, gt=0, description="Seconds between two reads of a running job's progress.")
    status_interval_s: float = Field(
        5, ge=0, description="Least number of seconds between two writes of a job's progress into its status."
    )
    namespaces: list[Name] = Field([], description="Namespaces that are served; empty for all.")
    workers: int = Field(8, ge=1, le=64, description="Resources that are worked on at the same time.")
    api_connections: int = Field(16, ge=1, le=256, description="Most connections to the API server for own calls.")
    resync_interval_s: float = Field(
        300, gt=0, description="Seconds between two full listings that repair lost events."
    )
    metrics_host: str = Field(
        "",
        description="Address of /metrics, /healthz and /readyz; empty for the one in the environment variable POD_IP, "
        "or all where it is not set.",
    )
    metrics_port: int = Field(9090, ge=0, le=65535, description="Its port; 0 takes a free one and logs it.")
    admission: Admission = Field(
        default_factory=Admission, description="The webhook that tells whoever applies a resource what is wrong."
    )
    tracing: Tracing | None = Field(
        None, description="Collector that gets a trace of every run, read at the start only; default: none does."
    )
    leader_election: bool = Field(False, description="Whether replicas take turns by a Lease; one replica needs none.")
    leader_namespace: Name = Field("alidade-system", description="Namespace of the Lease.")
    lease_duration_s: int = Field(15, ge=3, description="Seconds after which a silent leader is replaced.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line.")

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, entries: list[str]) -> list[str]:
        wrong = [found for entry in entries if (found := entry_error(entry)) is not None]
        if wrong:
            raise ValueError(wrong[0])
        return entries

    @property
    def hosts(self) -> HostPolicy:
        """Where addresses may point to."""
        known = frozenset((self.operator_namespace, self.monitoring_namespace))
        return HostPolicy(self.allow_private_hosts, tuple(self.allowed_hosts), known)

    def training_backend_of(self, pool: str | None) -> TrainingBackend:
        """What a training job is on the pool of a name, the first one for None; one that is unknown has no say."""
        found = self.pool(pool)
        return (found.training_backend if found is not None else None) or self.training_backend

    @property
    def training_backends(self) -> frozenset[str]:
        """What training jobs are on the pools there are."""
        return frozenset(self.training_backend_of(pool.name) for pool in self.node_pools)

    def pool(self, name: str | None) -> NodePool | None:
        """The pool of a name, the first one for None, or None when there is no such pool."""
        if name is None:
            return self.node_pools[0]
        return next((pool for pool in self.node_pools if pool.name == name), None)


def listening_host(host: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The address that a configured one means; None is all addresses of both families."""
    return host or environ.get(POD_IP_ENV) or None


def load_config(environ: Mapping[str, str] = os.environ) -> OperatorConfig:
    """The configuration that the environment names, or the defaults when it names none; raises ConfigError."""
    path = environ.get(CONFIG_ENV)
    return read_config(Path(path)) if path else OperatorConfig()


def read_config(path: Path) -> OperatorConfig:
    """The configuration of a file; raises ConfigError when it is missing or wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); {CONFIG_ENV} must name a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    try:
        config = OperatorConfig.model_validate(content or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {field}: {first['msg']}") from error
    if config.tracing is not None and find_spec("opentelemetry") is None:
        raise ConfigError(
            f"{path}: tracing needs OpenTelemetry's SDK, which is not installed; the operator's image has it, and "
            "`pip install 'alidade-operator[tracing]'` brings it"
        )
    names = [pool.name for pool in config.node_pools]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigError(f"{path}: nodePools: {', '.join(doubled)} is there twice; give every pool its own name")
    return config
