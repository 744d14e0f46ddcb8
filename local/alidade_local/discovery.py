"""Which kinds an API server serves, as its clients learn it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alidade_local.client import ApiClient
from alidade_local.objects import Object
from alidade_local.resources import Resource

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(frozen=True)
class Served:
    """A kind, and what can be done with its objects."""

    resource: Resource
    verbs: frozenset[str]


async def served_resources(client: ApiClient) -> list[Served]:
    """Every kind once, in the version that the server prefers."""
    found: dict[tuple[str, str], Served] = {}
    for path in ("/api", "/apis"):
        document = await client.request("GET", path, accept=_AGGREGATED)
        for served in _served(document):
            found.setdefault((served.resource.group, served.resource.plural), served)
    return list(found.values())


def _served(document: Object) -> Iterator[Served]:
    for group in document.get("items") or []:
        for version in group.get("versions") or []:
            for entry in version.get("resources") or []:
                resource = Resource(
                    group["metadata"].get("name", ""),
                    version["version"],
                    entry["resource"],
                    entry["responseKind"]["kind"],
                    namespaced=entry["scope"] == "Namespaced",
                )
                yield Served(resource, frozenset(entry["verbs"]))
