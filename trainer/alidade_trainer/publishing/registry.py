"""A finished model as a version of a registered model of MLflow, with a run that has its metrics."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alidade_crds.contract import Owner
from alidade_crds.publishing import MlflowRegistration, RegisteredVersion
from alidade_crds.status import ModelInfo
from alidade_trainer.mlflow_runs import run_with_tag
from alidade_trainer.publishing.refusal import Refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_DIGEST = "alidade.digest"
_LONGEST = 600
"""Characters of a server's answer that are told."""


@dataclass(frozen=True)
class Entry:
    """What is registered."""

    model: ModelInfo
    metrics: dict[str, float]
    owner: Owner
    fingerprint: str
    """Of the job that made it."""

    @property
    def tags(self) -> dict[str, str]:
        """What run and version are tagged with."""
        owner = {f"alidade.{name}": value for name, value in self.owner.to_dict().items()}
        base = {"alidade.baseModel": self.model.base_model} if self.model.base_model else {}
        return {_DIGEST: self.model.digest, "alidade.jobFingerprint": self.fingerprint} | owner | base


def register(to: MlflowRegistration, entry: Entry) -> RegisteredVersion:
    """Registers the model at its address, once: a version of this digest and address is taken as it is.

    Who asks it is told by the environment, as MLflow's client has it. Raises Refusal.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise Refusal(
            "this image lacks the package mlflow-skinny; use one that has it, such as the release's trainer image"
        ) from error
    try:
        client = MlflowClient(tracking_uri=to.tracking_uri, registry_uri=to.tracking_uri)
        version = _known_version(client, to, entry) or _new_version(client, to, entry)
        if to.alias is not None:
            client.set_registered_model_alias(to.name, to.alias, version.version)
    except MlflowException as error:
        code = error.get_http_status_code()
        said = f"MLflow at {to.tracking_uri} answered {code}: {error.message[:_LONGEST]}"
        raise Refusal(said, retryable=code >= 500 or code == 429) from error
    return RegisteredVersion(name=to.name, version=str(version.version), run_id=version.run_id or None)


def _known_version(client: "MlflowClient", to: MlflowRegistration, entry: Entry) -> "ModelVersion | None":
    for version in client.search_model_versions(f"name = '{to.name}'"):
        if version.tags.get(_DIGEST) == entry.model.digest and version.source == entry.model.uri:
            return version
    return None


def _new_version(client: "MlflowClient", to: MlflowRegistration, entry: Entry) -> "ModelVersion":
    run_id = _run(client, to, entry)
    if not client.search_registered_models(f"name = '{to.name}'"):
        client.create_registered_model(to.name)
    return client.create_model_version(to.name, entry.model.uri, run_id=run_id, tags=entry.tags)


def _run(client: "MlflowClient", to: MlflowRegistration, entry: Entry) -> str:
    """The run that has the metrics: of an attempt that got no further, or a new one."""
    from mlflow.entities import Metric

    experiment = to.experiment or entry.owner.namespace
    run = run_with_tag(client, experiment, _DIGEST, name=entry.owner.name, tags=entry.tags)
    now = run.info.start_time
    # Databases refuse what is no number.
    metrics = [Metric(key, value, now, 0) for key, value in entry.metrics.items() if math.isfinite(value)]
    client.log_batch(run.info.run_id, metrics=metrics)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)
