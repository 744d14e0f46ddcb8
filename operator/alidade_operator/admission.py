"""Admission: what the condition Accepted would say, told to whoever applies a resource.

The answer comes from the plan that a reconcile would make, so that the two cannot disagree. Refused is only what
nothing that is applied beside it could put right; a claim, ConfigMap or resource that is not there yet is a warning,
since whoever applies a folder applies it in any order. Nothing is changed: what depends on the cluster (node pool,
image, output) is decided anew with each launch and told in the status, and a default written into the spec would be a
difference to the manifest in git.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from alidade_crds import GROUP
from alidade_crds.reasons import FINAL, ConditionType
from alidade_crds.status import Condition
from alidade_operator.api import PARENT_KINDS, ApiError, JsonObject, Kind
from alidade_operator.config import OperatorConfig
from alidade_operator.metrics import ADMISSION_DURATION, ADMISSIONS

_log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 4.0
"""Below the 5 s after which the API server gives up by the chart's configuration: late answers let through instead."""
NOT_CHECKED = "The operator could not check this; the condition Accepted will say what it finds."
_NO_UID = "00000000-0000-0000-0000-000000000000"
_NO_SUFFIX = "00000"
_FINAL = frozenset(str(reason) for reason in FINAL)
_KINDS = {kind.kind: kind for kind in PARENT_KINDS}
_UNPROCESSABLE = 422


@dataclass(frozen=True)
class Verdict:
    """The answer to a review. refusal: empty when the resource is let through."""

    refusal: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def outcome(self) -> Literal["allowed", "warned", "denied"]:
        """The answer in one word."""
        if self.refusal:
            return "denied"
        return "warned" if self.warnings else "allowed"

    def response(self, uid: str) -> JsonObject:
        """The AdmissionReview that answers the review of that uid."""
        response: JsonObject = {"uid": uid, "allowed": not self.refusal}
        if self.refusal:
            response["status"] = {"code": _UNPROCESSABLE, "reason": "Invalid", "message": self.refusal}
        if self.warnings:
            response["warnings"] = list(self.warnings)
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


@dataclass(frozen=True)
class Objection:
    """What a condition says against a resource."""

    status: str
    reason: str
    message: str

    @property
    def is_final(self) -> bool:
        """Whether nothing that is made beside the resource answers it."""
        return self.status == "False" and self.reason in _FINAL


class Foresight(Protocol):
    """Who knows what the conditions of a resource would be."""

    @property
    def config(self) -> OperatorConfig:
        """The configuration that holds now."""

    async def foresee(self, kind: Kind, body: JsonObject, *, alone: bool = False) -> list[Condition]:
        """The conditions that a resource would have if it were as proposed; alone: without any other of ours."""


class MalformedReviewError(ValueError):
    """What was sent is no AdmissionReview."""


async def review(content: Any, foresight: Foresight) -> JsonObject:
    """The answer to an AdmissionReview; raises MalformedReviewError.

    What cannot be judged, because the API does not answer, or by a mistake of ours, is let through with a warning.
    """
    request = content.get("request") if isinstance(content, dict) else None
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise MalformedReviewError("write an AdmissionReview of admission.k8s.io/v1 with a request and its uid")
    begun = time.monotonic()
    named = request.get("kind")
    name = str(named.get("kind")) if isinstance(named, dict) and named.get("group") == GROUP else ""
    label = name if name in _KINDS else "other"
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            verdict = await _judged(request, _KINDS.get(name), foresight)
        outcome: str = verdict.outcome
    except Exception as error:
        outcome = "error"
        why = "the API server did not answer in time" if isinstance(error, TimeoutError) else str(error)
        fields = {"action": "admit", "kind": name, "resource": str(request.get("name")), "why": why}
        expected = isinstance(error, ApiError | TimeoutError)
        _log.error("a review failed", extra=fields, exc_info=None if expected else error)
        verdict = Verdict(warnings=(NOT_CHECKED,))
    ADMISSIONS.labels(label, outcome).inc()
    ADMISSION_DURATION.labels(label).observe(time.monotonic() - begun)
    return verdict.response(request["uid"])


async def _judged(request: JsonObject, kind: Kind | None, foresight: Foresight) -> Verdict:
    new, old = request.get("object"), request.get("oldObject")
    if kind is None or not isinstance(new, dict) or not _concerns(request, new, foresight.config):
        return Verdict()
    before = old if request["operation"] == "UPDATE" and isinstance(old, dict) else None
    if before is not None and before.get("spec") == new.get("spec"):
        return Verdict()
    body = proposed(request, new, before)
    found = await _objection(foresight, kind, body)
    if found is None:
        return Verdict()
    told = f"{found.reason}: {found.message}"
    if not found.is_final:
        return Verdict(warnings=(told,))
    if await _objection(foresight, kind, body, alone=True) != found:
        return Verdict(warnings=(told,))  # it rests on another resource, which may be applied anew
    if before is not None and await _objection(foresight, kind, proposed(request, before, None)) == found:
        return Verdict(warnings=(told,))  # it stood before; whoever suspends the resource need not mend it first
    return Verdict(refusal=told)


def _concerns(request: JsonObject, new: JsonObject, config: OperatorConfig) -> bool:
    """Whether a review asks about the spec of a resource that somebody has written."""
    if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource"):
        return False
    if config.namespaces and request.get("namespace") not in config.namespaces:
        return False
    metadata = new.get("metadata") or {}
    # A run's stages are the operator's own: what stands against them is told by the run, with the webhook or without.
    owners = metadata.get("ownerReferences") or []
    is_stage = any(one.get("controller") and str(one.get("apiVersion")).startswith(f"{GROUP}/") for one in owners)
    return not metadata.get("deletionTimestamp") and not is_stage


def proposed(request: JsonObject, body: JsonObject, before: JsonObject | None) -> JsonObject:
    """A resource as it would be stored, with what the API server has yet to fill in.

    before: what it is to replace, whose generation comes before that of a changed spec.
    """
    metadata = dict(body.get("metadata") or {})
    metadata.setdefault("namespace", request.get("namespace") or "")
    metadata.setdefault("name", request.get("name") or f"{metadata.get('generateName', '')}{_NO_SUFFIX}")
    metadata.setdefault("uid", _NO_UID)
    if before is not None:
        metadata["generation"] = int((before.get("metadata") or {}).get("generation") or 1) + 1
    kept = body if request.get("operation") == "UPDATE" else {key: body[key] for key in body if key != "status"}
    return kept | {"metadata": metadata}


async def _objection(foresight: Foresight, kind: Kind, body: JsonObject, *, alone: bool = False) -> Objection | None:
    """What the conditions would say against a resource; None when they would say nothing."""
    conditions = {one.type: one for one in await foresight.foresee(kind, body, alone=alone)}
    for name, wrong in ((ConditionType.ACCEPTED, ("False", "Unknown")), (ConditionType.FITS, ("False",))):
        condition = conditions.get(name)
        if condition is not None and condition.status in wrong:
            return Objection(condition.status, condition.reason, condition.message)
    return None
