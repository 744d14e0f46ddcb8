"""The credentials with which a training pod publishes its model and tells a tracker its metrics."""

from typing import Any

from alidade_crds.blocks import Tracking
from alidade_crds.contract import HUB_TOKEN_ENV
from alidade_crds.publishing import Publish

_HUB_KEY = "HF_TOKEN"
_WANDB_KEY = "WANDB_API_KEY"
_MLFLOW_KEYS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def credentials(publish: Publish | None, tracking: Tracking | None) -> tuple[dict[str, Any], ...]:
    """Variables from the Secrets that the two blocks name; of MLflow's keys those that there are.

    MLflow's client knows one set of keys: where both blocks name a Secret, that of `publish` counts.
    """
    found = []
    if publish is not None and publish.hub is not None and publish.hub.secret_name is not None:
        found.append(_variable(HUB_TOKEN_ENV, {"name": publish.hub.secret_name, "key": _HUB_KEY}))
    servers = (publish.mlflow if publish is not None else None, tracking.mlflow if tracking is not None else None)
    secret = next((one.secret_name for one in servers if one is not None and one.secret_name is not None), None)
    if secret is not None:
        found += [_variable(key, {"name": secret, "key": key, "optional": True}) for key in _MLFLOW_KEYS]
    if tracking is not None and tracking.wandb is not None and tracking.wandb.secret_name is not None:
        # Without its Secret a pod would wait for ever; without the key the tracker refuses, which is told.
        found.append(_variable(_WANDB_KEY, {"name": tracking.wandb.secret_name, "key": _WANDB_KEY, "optional": True}))
    return tuple(found)


def _variable(name: str, reference: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
