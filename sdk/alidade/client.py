"""The way in: a cluster and a namespace, with the resources of every kind."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alidade.errors import AlidadeError
from alidade.resources import Resources
from alidade_crds.alignmentrun import AlignmentRunSpec, AlignmentRunStatus
from alidade_crds.crd import KINDS, Kind
from alidade_crds.evaluation import EvaluationSpec, EvaluationStatus
from alidade_crds.jobs import FineTuneJobSpec, FineTuneJobStatus, RewardModelSpec, RewardModelStatus
from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Client:
    """A cluster as one namespace of it has it. Holds connections; may be used from several threads."""

    def __init__(
        self,
        namespace: str | None = None,
        *,
        kubeconfig: str | Path | None = None,
        context: str | None = None,
        api: "ApiClient | None" = None,
    ) -> None:
        """namespace: default that of the kubeconfig, in a pod the pod's own.

        kubeconfig: default as kubectl takes it, in a pod the account's. api: a client of the package kubernetes to use
        instead. Raises AlidadeError without any.
        """
        if api is None:
            api, own = _connect(kubeconfig, context)
            namespace = namespace or own
        self.api = api
        self.namespace = namespace or "default"

    @cached_property
    def fine_tune_jobs(self) -> Resources[FineTuneJobSpec, FineTuneJobStatus]:
        """FineTuneJobs."""
        return Resources(_kind("FineTuneJob"), FineTuneJobSpec, FineTuneJobStatus, self.namespace, self.api)

    @cached_property
    def reward_models(self) -> Resources[RewardModelSpec, RewardModelStatus]:
        """RewardModels."""
        return Resources(_kind("RewardModel"), RewardModelSpec, RewardModelStatus, self.namespace, self.api)

    @cached_property
    def alignment_runs(self) -> Resources[AlignmentRunSpec, AlignmentRunStatus]:
        """AlignmentRuns."""
        return Resources(_kind("AlignmentRun"), AlignmentRunSpec, AlignmentRunStatus, self.namespace, self.api)

    @cached_property
    def evaluations(self) -> Resources[EvaluationSpec, EvaluationStatus]:
        """Evaluations."""
        return Resources(_kind("Evaluation"), EvaluationSpec, EvaluationStatus, self.namespace, self.api)

    @cached_property
    def model_serves(self) -> Resources[ModelServeSpec, ModelServeStatus]:
        """ModelServes."""
        return Resources(_kind("ModelServe"), ModelServeSpec, ModelServeStatus, self.namespace, self.api)


def _kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.kind == name)


def _connect(kubeconfig: str | Path | None, context: str | None) -> tuple[Any, str]:
    """A client of the API, and the namespace that goes with it."""
    from kubernetes import client, config

    path = str(kubeconfig) if kubeconfig is not None else None
    try:
        contexts, active = config.list_kube_config_contexts(path)
        chosen = active if context is None else next(one for one in contexts if one["name"] == context)
        api = config.new_client_from_config(path, context)
    except StopIteration as error:
        raise AlidadeError(f"the kubeconfig has no context {context}") from error
    except config.ConfigException as error:
        if path is not None or context is not None:
            raise AlidadeError(f"no kubeconfig that can be used: {error}") from error
    else:
        return api, chosen["context"].get("namespace", "default")
    settings = client.Configuration()
    try:
        config.load_incluster_config(settings)
    except config.ConfigException as error:
        raise AlidadeError("no cluster: set KUBECONFIG, or name a kubeconfig") from error
    return client.ApiClient(settings), _OWN_NAMESPACE.read_text().strip()
