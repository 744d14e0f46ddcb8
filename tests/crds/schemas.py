"""The schemas of the kinds, as an API server reads them."""

import copy
from typing import Any

from alidade_crds.crd import KINDS, crd_manifest
from alidade_local.apiserver import cel_rules
from alidade_local.apiserver.defaulting import apply_defaults
from alidade_local.apiserver.schema import Schema
from alidade_local.apiserver.validation import validate

SCHEMAS = {kind.kind: Schema(crd_manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]) for kind in KINDS}


def errors(kind: str, spec: dict[str, Any], old: dict[str, Any] | None = None, name: str = "demo") -> list[str]:
    """`field: message` of every objection to a resource of this spec, or to its change from an older one."""
    found, before = [], None
    for version in (old, spec):
        if version is None:
            continue
        obj = copy.deepcopy(
            {"apiVersion": "alidade.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": version}
        )
        apply_defaults(obj, SCHEMAS[kind])
        found = validate(obj, SCHEMAS[kind]) or cel_rules.check(obj, SCHEMAS[kind], before)
        before = obj
    return [f"{error.field}: {error.message}" for error in found]


def status_errors(kind: str, status: dict[str, Any]) -> list[str]:
    """`field: message` of every objection to a status."""
    obj = {"apiVersion": "alidade.dev/v1alpha1", "kind": kind, "metadata": {"name": "demo"}, "status": status}
    found = validate(obj, SCHEMAS[kind]) or cel_rules.check(obj, SCHEMAS[kind], None)
    return [f"{error.field}: {error.message}" for error in found if error.field.startswith("status")]
