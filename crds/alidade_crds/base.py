"""The base class of every type users write, and how a rule among fields is attached to it."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

# Bounds on free text keep the API server's estimate of a CEL rule's cost finite; they are far above honest use.
Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object of the same namespace (RFC 1123)."""
Uri = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Text = Annotated[str, StringConstraints(max_length=4096)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
"""A Kubernetes quantity, such as `16`, `500m` or `200Gi`."""


def _without_infinity(value: Any) -> Any:
    is_none = isinstance(value, float) and not math.isfinite(value)
    return None if is_none or value in ("NaN", "Infinity", "-Infinity") else value


MOST_COUNTED = 2**53 - 1
"""The largest whole number that every reader of JSON can hold (RFC 8259, section 6)."""
Count = Annotated[int, Field(ge=0, le=MOST_COUNTED)]
"""How many, as a pod tells it."""
Measured = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_without_infinity)]
"""A number that a pod has measured; None where it is NaN or infinite, which no status can hold."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
"""The name of an environment variable."""


class Spec(BaseModel):
    """A block of fields as users write it: camelCase in YAML, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """The block as it stands in YAML, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def chosen(self) -> dict[str, Any]:
        """The block without what is as it would be by itself: a release that adds a field leaves this as it was."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


class Report(BaseModel):
    """A block that the platform writes (status, progress, results): fields of a newer version are passed over."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """The block as it stands in YAML, without what is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*cel: tuple[str, str]) -> dict[str, Any]:
    """`json_schema_extra` that carries CEL rules, each a pair (rule, message), into the generated schema."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in cel]}


def spec_config(*cel: tuple[str, str]) -> ConfigDict:
    """The configuration of a `Spec` class that also carries CEL rules."""
    return ConfigDict(json_schema_extra=rules(*cel))


NO_CLIMBING = r"!self.uri.matches('(^|/)[.][.](/|$)')", "uri must not climb out of its volume with '..'"
"""The rule of blocks whose uri is set."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]
"""A sha256 in hexadecimal."""
OF_THE_WEB = (
    "!has(self.uri) || !self.uri.matches('^https?://') || has(self.sha256)",
    "sha256 must be set with an http(s):// uri: what lies there can change",
)
"""The rule of blocks whose uri may be of http(s)."""


__all__ = [
    "MOST_COUNTED",
    "NO_CLIMBING",
    "OF_THE_WEB",
    "Count",
    "Digest",
    "Field",
    "Measured",
    "Name",
    "Quantity",
    "Report",
    "Spec",
    "Text",
    "Uri",
    "VariableName",
    "rules",
    "spec_config",
]
