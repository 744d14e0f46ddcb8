"""The ConfigMap of the adapters that a ModelServe's replicas load while they run.

New replicas read it when they start; into those that run the operator loads what comes and goes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alidade_crds.uris import parse_uri
from alidade_operator.api import CONFIG_MAP, MODEL_SERVE, JsonObject
from alidade_operator.resources.engines.server import ADAPTERS_FILE, Server, adapter_paths, adapters_name, path_in_pod
from alidade_operator.resources.labels import child_labels, is_owned_by
from alidade_operator.resources.serving import APPLIED, COMPONENT, marked

_DIGESTS, _MADE_ANEW = "digests", "made-anew"


@dataclass(frozen=True)
class AdapterListView:
    """The ConfigMap as it is observed. digests: of what lies at each place, as far as the platform has made it.

    made_anew: what changed when an adapter was made anew at its place; empty when none ever was.
    """

    owned: bool
    applied: str | None
    digests: Mapping[str, str]
    made_anew: str = ""


def adapter_list_view(body: JsonObject, uid: str) -> AdapterListView:
    """The ConfigMap as the ModelServe of that uid sees it."""
    metadata, data = body["metadata"], body.get("data") or {}
    annotations = metadata.get("annotations") or {}
    try:
        digests: Any = json.loads(data.get(_DIGESTS, "{}"))
    except ValueError:
        digests = {}
    known = digests if isinstance(digests, dict) else {}
    return AdapterListView(is_owned_by(metadata, uid), annotations.get(APPLIED), known, data.get(_MADE_ANEW, ""))


def made_anew(server: Server, before: AdapterListView | None) -> str:
    """What has to be another when weights have changed at a place that a server has read.

    vLLM keeps what it has computed under an adapter by its name and place; only a new process forgets that.
    """
    if before is None:
        return ""
    digests = _digests(server)
    if all(before.digests.get(place, digest) == digest for place, digest in digests.items()):
        return before.made_anew
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def adapter_list(server: Server, before: AdapterListView | None) -> JsonObject:
    """The ConfigMap; server: with its made_anew."""
    # Places that are no longer served stay known: what comes back there may be another adapter.
    digests = {**(before.digests if before is not None else {}), **_digests(server)}
    return marked(
        server.name,
        server.uid,
        {
            "apiVersion": CONFIG_MAP.api_version,
            "kind": CONFIG_MAP.kind,
            "metadata": {
                "name": adapters_name(server.name),
                "namespace": server.namespace,
                "labels": child_labels(MODEL_SERVE.kind, server.name, COMPONENT),
                "annotations": {},
            },
            "data": {
                ADAPTERS_FILE: "".join(f"{line}\n" for line in adapter_paths(server)),
                _DIGESTS: json.dumps(digests, sort_keys=True),
                _MADE_ANEW: server.made_anew,
            },
        },
    )


def wanted_adapters(server: Server) -> tuple[tuple[str, str], ...]:
    """Name and folder of each adapter, as a replica is to have them."""
    return tuple((one.name, path_in_pod(parse_uri(one.uri))) for one in server.adapters)


def _digests(server: Server) -> dict[str, str]:
    return {f"{one.name}={one.uri}": one.digest for one in server.adapters if one.digest is not None}
