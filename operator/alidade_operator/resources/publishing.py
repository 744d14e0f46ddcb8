"""The credentials with which a training pod publishes its model."""

from typing import Any

from alidade_crds.contract import HUB_TOKEN_ENV
from alidade_crds.publishing import Publish

_HUB_KEY = "HF_TOKEN"
_MLFLOW_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def credentials(publish: Publish | None) -> tuple[dict[str, Any], ...]:
    """Variables from the Secrets that `publish` names; of MLflow's keys those that there are."""
    found = []
    if publish is not None and publish.hub is not None and publish.hub.secret_name is not None:
        found.append(_variable(HUB_TOKEN_ENV, {"name": publish.hub.secret_name, "key": _HUB_KEY}))
    if publish is not None and publish.mlflow is not None and publish.mlflow.secret_name is not None:
        secret = publish.mlflow.secret_name
        found += [_variable(key, {"name": secret, "key": key, "optional": True}) for key in _MLFLOW_KEYS]
    return tuple(found)


def _variable(name: str, reference: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
