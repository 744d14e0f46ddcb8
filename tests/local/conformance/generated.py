"""Scripts made by chance: writes of several managers to few fields, right and wrong ones."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from tests.local.conformance.scripts import GROUP

Json = dict[str, Any]

_text = st.sampled_from(["a", "b", "c"])
_managers = st.sampled_from(["one", "two", "three"])


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """An object with some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


_part = st.fixed_dictionaries(
    {"name": st.sampled_from(["p", "q"])},
    optional={"size": st.integers(0, 2), "note": _text},
)
_gauge_spec = st.fixed_dictionaries(
    {"color": st.sampled_from(["red", "green", "green", "red", "pink"])},
    optional={
        "tags": st.lists(_text, max_size=3),
        "parts": st.lists(_part, max_size=2),
        "whole": st.lists(_text, max_size=2),
        "atoms": _some(x=_text, y=_text),
        "options": _some(depth=st.integers(0, 2), mode=_text),
        "words": _some(k=_text, l=_text, m=_text),
        "maybe": st.none() | _text,
        "filled": st.none() | _text,
        "low": st.integers(0, 3),
        "high": st.integers(0, 3),
        "fixed": _text,
        "replicas": st.integers(-1, 3),
        "free": _some(x=st.none() | st.integers(0, 2), y=_some(z=_text)),
        "extra": _text,
    },
)
_container = st.fixed_dictionaries(
    {"name": st.sampled_from(["c", "d"]), "image": _text},
    optional={
        "env": st.lists(
            st.fixed_dictionaries({"name": _text, "value": _text}), max_size=2, unique_by=lambda e: e["name"]
        ),
        "ports": st.lists(
            st.fixed_dictionaries(
                {"containerPort": st.integers(80, 82)}, optional={"name": st.sampled_from(["x", "y"])}
            ),
            max_size=2,
            unique_by=lambda port: port["containerPort"],
        ),
        "command": st.lists(_text, max_size=2),
        "resources": _some(limits=_some(cpu=st.sampled_from(["1", "1000m", "0.5"]), memory=st.just("1Gi"))),
    },
)
# Not empty: how often the original then writes a custom resource anew is known to be another (docs/reference).
_metadata = _some(
    labels=_some(k=_text, l=_text).filter(bool),
    annotations=_some(k=_text).filter(bool),
    finalizers=st.lists(st.sampled_from(["a/x", "b/y"]), min_size=1, max_size=2, unique=True),
)


def _identity(api_version: str, kind: str) -> Json:
    return {"apiVersion": api_version, "kind": kind}


_gauge = st.builds(
    lambda spec, metadata: {**_identity(f"{GROUP}/v1", "Gauge"), "metadata": {"name": "o", **metadata}, "spec": spec},
    _gauge_spec,
    _metadata,
)
_config_map = st.builds(
    lambda data, metadata: {**_identity("v1", "ConfigMap"), "metadata": {"name": "o", **metadata}, "data": data},
    _some(k=_text, l=_text, m=_text),
    _metadata,
)
_deployment = st.builds(
    lambda containers, replicas, metadata: {
        **_identity("apps/v1", "Deployment"),
        "metadata": {"name": "o", **metadata},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "o"}},
            "template": {"metadata": {"labels": {"app": "o"}}, "spec": {"containers": containers}},
        },
    },
    st.lists(_container, min_size=1, max_size=2, unique_by=lambda container: container["name"]),
    st.integers(0, 2),
    _metadata,
)


def _without(obj: Json, *names: str) -> Json:
    return {name: value for name, value in obj.items() if name not in names}


def _steps(plural: str, objects: st.SearchStrategy[Json], patch_types: list[str]) -> st.SearchStrategy[Json]:
    """One write of an object `o`."""
    path = f"{plural}/o"

    def apply(obj: Json, manager: str, force: bool) -> Json:
        query = f"?fieldManager={manager}{'&force=true' if force else ''}"
        return {"PATCH": path + query, "type": "apply", "body": obj}

    def patch(obj: Json, manager: str, media: str) -> Json:
        body = {"metadata": _without(obj["metadata"], "name"), **_without(obj, "apiVersion", "kind", "metadata")}
        return {"PATCH": f"{path}?fieldManager={manager}", "type": media, "body": body}

    def put(obj: Json, manager: str) -> Json:
        body = {**obj, "metadata": {**obj["metadata"], "resourceVersion": "{current.metadata.resourceVersion}"}}
        return {"PUT": f"{path}?fieldManager={manager}", "body": body}

    return st.one_of(
        st.builds(apply, objects, _managers, st.booleans()),
        st.builds(apply, objects, _managers, st.just(True)),
        st.builds(patch, objects, _managers, st.sampled_from(patch_types)),
        st.builds(put, objects, _managers),
    )


def _script(plural: str, objects: st.SearchStrategy[Json], patch_types: list[str]) -> st.SearchStrategy[list[Json]]:
    create = st.builds(
        lambda obj, manager: {"POST": f"{plural}?fieldManager={manager}", "body": obj}, objects, _managers
    )
    look = {"GET": f"{plural}/o", "as": "current", "only": ["metadata.name"]}
    writes = st.lists(_steps(plural, objects, patch_types), min_size=1, max_size=4)

    def script(first: Json, rest: list[Json]) -> list[Json]:
        return [step for write in (first, *rest) for step in ([look, write] if "PUT" in write else [write])]

    return st.builds(script, st.one_of(create, _steps(plural, objects, patch_types)), writes)


scripts = st.one_of(
    _script("gauges", _gauge, ["merge"]),
    _script("configmaps", _config_map, ["merge", "strategic"]),
    _script("deployments", _deployment, ["merge", "strategic"]),
)
