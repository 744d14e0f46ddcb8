"""Schemas of the built-in kinds, from the JSON schemas that the kubernetes-validate package carries."""

from functools import cache
from importlib.resources import files

import orjson

from alidade_local.apiserver.schema import Definitions, Schema

KUBERNETES_VERSION = "1.34"
"""The minor version whose API the server offers."""


@cache
def definitions() -> Definitions:
    """All definitions of that version; reading the 1.5 MB takes about 10 ms and happens on the first use."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES_VERSION}.0-local"
    raw = orjson.loads((folder / "_definitions.json").read_bytes())["$defs"]
    return Definitions(raw)


def definition_name(group: str, version: str, kind: str) -> str:
    """The definition's name, as Kubernetes composes it from group, version and kind."""
    if group == "apiextensions.k8s.io":
        return f"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"
    short = group.removesuffix(".k8s.io").removesuffix(".authorization") if group else "core"
    return f"io.k8s.api.{short}.{version}.{kind}"


def builtin_schema(group: str, version: str, kind: str) -> Schema:
    """The schema of a built-in kind."""
    return definitions().named(definition_name(group, version, kind))
