"""Defaults and rules of the core kinds but pods and Services, as far as kubectl and controllers rely on them."""

import base64
import re
from collections.abc import Sequence
from typing import Any

from alidade_local.apiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from alidade_local.apiserver.kinds import KindRules
from alidade_local.quantities import canonical_quantity

Json = dict[str, Any]


def _default_namespace(namespace: Json) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    namespace.setdefault("spec", {})


def _new_namespace(namespace: Json) -> None:
    namespace["spec"].setdefault("finalizers", ["kubernetes"])
    namespace["status"] = {"phase": "Active"}


NAMESPACE = KindRules(default=_default_namespace, prepare_create=_new_namespace, counts_generation=False)


def _validate_data_keys(obj: Json, field: str) -> list[FieldError]:
    return [
        invalid(
            f"{field}[{key}]",
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        )
        for key in obj.get(field) or {}
        if not re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key)
    ]


def _immutable_errors(obj: Json, old: Json | None, fields: Sequence[str]) -> list[FieldError]:
    if old is None or not old.get("immutable"):
        return []
    errors = [
        forbidden_field(name, "field is immutable when `immutable` is set")
        for name in fields
        if (obj.get(name) or {}) != (old.get(name) or {})
    ]
    if not obj.get("immutable"):
        errors.append(forbidden_field("immutable", "field is immutable when `immutable` is set"))
    return errors


def _validate_config_map(obj: Json, old: Json | None) -> list[FieldError]:
    errors = [*_validate_data_keys(obj, "data"), *_validate_data_keys(obj, "binaryData")]
    for key in sorted(set(obj.get("data") or ()) & set(obj.get("binaryData") or ())):
        errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    return errors + _immutable_errors(obj, old, ("data", "binaryData"))


CONFIG_MAP = KindRules(validate=_validate_config_map, counts_generation=False)


def _default_secret(secret: Json) -> None:
    secret.setdefault("type", "Opaque")
    texts = secret.pop("stringData", None) or {}
    if texts:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


_KEYS_OF_SECRETS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
}


def _secret_type_errors(secret: Json) -> list[FieldError]:
    data = secret.get("data") or {}
    missing = [key for key in _KEYS_OF_SECRETS.get(secret["type"], ()) if key not in data]
    if secret["type"] == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        missing = ["username", "password"]
    errors = [required(f"data[{key}]") for key in missing]
    if secret["type"] == "kubernetes.io/service-account-token":
        name = "kubernetes.io/service-account.name"
        if not (secret["metadata"].get("annotations") or {}).get(name):
            errors.append(required(f"metadata.annotations[{name}]"))
    return errors


def _validate_secret(secret: Json, old: Json | None) -> list[FieldError]:
    errors = _validate_data_keys(secret, "data") + _secret_type_errors(secret)
    if old is not None and secret["type"] != old["type"]:
        errors.append(invalid("type", secret["type"], "field is immutable"))
    return errors + _immutable_errors(secret, old, ("data",))


SECRET = KindRules(default=_default_secret, validate=_validate_secret, counts_generation=False)


def _default_claim(claim: Json) -> None:
    spec = claim.setdefault("spec", {})
    spec.setdefault("volumeMode", "Filesystem")
    requests = (spec.get("resources") or {}).get("requests") or {}
    requests.update({name: canonical_quantity(quantity) for name, quantity in requests.items()})


def _new_claim(claim: Json) -> None:
    claim["status"] = {"phase": "Pending"}


def _validate_claim(claim: Json, old: Json | None) -> list[FieldError]:
    spec = claim["spec"]
    errors: list[FieldError] = []
    if old is not None:
        changeable = ("resources", "volumeName", "volumeAttributesClassName")
        if {k: v for k, v in spec.items() if k not in changeable} != {
            k: v for k, v in old["spec"].items() if k not in changeable
        }:
            errors.append(
                forbidden_field(
                    "spec",
                    "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
                    "bound claims",
                )
            )
        return errors
    if not spec.get("accessModes"):
        errors.append(required("spec.accessModes", "at least 1 access mode is required"))
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        errors.append(required("spec.resources[storage]"))
    return errors


PERSISTENT_VOLUME_CLAIM = KindRules(
    default=_default_claim, prepare_create=_new_claim, validate=_validate_claim, counts_generation=False
)


def _validate_event(event: Json, _: Json | None) -> list[FieldError]:
    involved = (event.get("involvedObject") or {}).get("namespace", "")
    namespace = event["metadata"].get("namespace", "")
    if involved != namespace and not (not involved and namespace == "default"):
        return [invalid("involvedObject.namespace", involved, "does not match event.namespace")]
    return []


def _default_event(event: Json) -> None:
    event.setdefault("involvedObject", {})
    event.setdefault("source", {})
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")


EVENT = KindRules(default=_default_event, validate=_validate_event, counts_generation=False)

_RBAC = "rbac.authorization.k8s.io"


def _default_binding(binding: Json) -> None:
    reference = binding.setdefault("roleRef", {})
    reference.setdefault("apiGroup", _RBAC)
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", _RBAC)


def _validate_binding(binding: Json, old: Json | None) -> list[FieldError]:
    reference = binding["roleRef"]
    errors: list[FieldError] = []
    if reference.get("kind") not in ("Role", "ClusterRole"):
        errors.append(not_supported("roleRef.kind", reference.get("kind", ""), ("Role", "ClusterRole")))
    if not reference.get("name"):
        errors.append(required("roleRef.name"))
    if old is not None and reference != old["roleRef"]:
        errors.append(invalid("roleRef", reference, "cannot change roleRef"))
    for index, subject in enumerate(binding.get("subjects") or ()):
        path = f"subjects[{index}]"
        if not subject.get("name"):
            errors.append(required(f"{path}.name"))
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            errors.append(not_supported(f"{path}.kind", subject.get("kind", ""), ("ServiceAccount", "User", "Group")))
        elif subject["kind"] == "ServiceAccount" and not subject.get("namespace") and binding["kind"] != "RoleBinding":
            errors.append(required(f"{path}.namespace"))
    return errors


def _validate_role(role: Json, _: Json | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, rule in enumerate(role.get("rules") or ()):
        path = f"rules[{index}]"
        if not rule.get("verbs"):
            errors.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            continue
        for name, detail in (
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ):
            if not rule.get(name):
                errors.append(required(f"{path}.{name}", detail))
    return errors


ROLE = KindRules(validate=_validate_role, counts_generation=False)


def _validate_lease(lease: Json, _: Json | None) -> list[FieldError]:
    spec = lease.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    errors = []
    if duration is not None and duration <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return errors


LEASE = KindRules(validate=_validate_lease, counts_generation=False)
ROLE_BINDING = KindRules(default=_default_binding, validate=_validate_binding, counts_generation=False)
