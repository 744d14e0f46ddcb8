"""x-kubernetes-validations: the CEL rules of structural schemas."""

from typing import Any

from alidade_local.apiserver.errors import FieldError
from alidade_local.apiserver.schema import Schema

Json = dict[str, Any]


def check(obj: Json, schema: Schema, old: Json | None) -> list[FieldError]:
    """Every rule that does not hold for the object."""
    return []
