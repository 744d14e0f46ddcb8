"""Whether runs can be disturbed on a cluster that somebody has already."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from alidade_operator.api import (
    AUTOSCALER,
    CLAIM,
    CONFIG_MAP,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    FINE_TUNE_JOB,
    JOB,
    NETWORK_POLICY,
    PARENT_KINDS,
    POD,
    PYTORCH_JOB,
    SERVICE,
    Api,
    ApiError,
    Kind,
)
from tests.chaos.trial import STAGE, delete_namespace
from tests.operator.played import CRD, NAMESPACE, Played, send

REVIEW = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
MADE = (
    NAMESPACE, *PARENT_KINDS, PYTORCH_JOB, JOB, POD, DEPLOYMENT, SERVICE, DISRUPTION_BUDGET, NETWORK_POLICY, AUTOSCALER,
    CONFIG_MAP, CLAIM,
)  # fmt: skip
RIGHTS = (
    *((verb, kind, "") for kind in MADE for verb in ("create", "delete")),
    ("update", CRD, ""), ("get", POD, "log"), ("create", POD, "eviction"),
)  # fmt: skip
ANSWER_S = 3.0
"""An operator that is at work has answered by then."""


class UnfitClusterError(Exception):
    """Runs cannot be disturbed there; the message says why, and what to do."""


async def inspect(api: Api, kubeconfig: Path, namespace: str) -> None:
    """Rights, kinds, a name that is free, and nobody who would do the operator's work beside it; UnfitClusterError."""
    try:
        missing = [right for right in RIGHTS if not await _may(api, namespace, *right)]
        kinds = [kind for kind in (*PARENT_KINDS, PYTORCH_JOB) if not await _knows(api, namespace, kind)]
    except ApiError as error:
        raise UnfitClusterError(f"the cluster of {kubeconfig} does not answer: {error.message.strip()}") from None
    if missing:
        told = ", ".join(f"{verb} {'/'.join(filter(None, (kind.plural, sub)))}" for verb, kind, sub in missing)
        raise UnfitClusterError(f"{kubeconfig} may not {told}: name one of an administrator of the cluster")
    if kinds:
        told = ", ".join(f"{kind.kind} ({kind.api_version})" for kind in kinds)
        raise UnfitClusterError(f"the cluster does not know {told}: install Alidade, and Kubeflow's training operator")
    await _is_free(api, namespace)


async def _may(api: Api, namespace: str, verb: str, kind: Kind, subresource: str) -> bool:
    attributes = {"verb": verb, "group": kind.group, "resource": kind.plural, "subresource": subresource}
    body = {
        "apiVersion": REVIEW.api_version,
        "kind": REVIEW.kind,
        "spec": {"resourceAttributes": attributes | {"namespace": namespace}},
    }
    return bool((await send(api, "POST", REVIEW, REVIEW.path(), body))["status"]["allowed"])


async def _knows(api: Api, namespace: str, kind: Kind) -> bool:
    try:
        await api.list(kind, namespace=namespace)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return error.status == 403  # rights are told of by themselves
    return True


async def _is_free(api: Api, namespace: str) -> None:
    """Makes the namespace, and in it a job that waits: the suite's operator is not there yet, so nobody may answer."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    try:
        await send(api, "POST", NAMESPACE, NAMESPACE.path(), body)
    except ApiError as error:
        raise UnfitClusterError(
            f"namespace {namespace} cannot be made: {error.message}. The suite makes and deletes one of its own: "
            "give --namespace a name that is free"
        ) from None
    try:
        if await _is_answered(api, namespace):
            raise UnfitClusterError(
                "an operator is at work on this cluster, beside which the suite's own cannot be tested: scale its "
                "Deployment to 0, or start a local cluster with `alidade up --no-operator`"
            )
    finally:
        await delete_namespace(api, namespace)


async def _is_answered(api: Api, namespace: str) -> bool:
    _, _, spec = STAGE.resources[-1]
    played = Played(api, namespace)
    try:
        await played.apply_kind(FINE_TUNE_JOB, "probe", spec | {"suspend": True})
    except ApiError as error:
        raise UnfitClusterError(f"no FineTuneJob can be applied in {namespace}: {error.message}") from None
    deadline = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline:
        if (await played.read("probe")).get("conditions"):
            return True
        await asyncio.sleep(0.2)
    return False
