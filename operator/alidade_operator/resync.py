"""Full listings of every kind: they fill the cache at the start, and later bring right what watches have lost."""

import logging
from collections.abc import Callable, Collection, Sequence

from alidade_operator.api import CHILD_KINDS, CLAIM, OPTIONAL_KINDS, PARENT_KINDS, Api, ApiError, JsonObject, Kind
from alidade_operator.cache import Cache
from alidade_operator.resources.labels import SELECTOR

WATCHED_KINDS = (*PARENT_KINDS, *CHILD_KINDS, CLAIM)

_log = logging.getLogger(__name__)


def selector_of(kind: Kind) -> str:
    """The label selector by which a kind is listed and watched; empty for all of it."""
    return SELECTOR if kind in CHILD_KINDS else ""


async def resync(
    cache: Cache,
    api: Api,
    namespaces: Sequence[str],
    on_change: Callable[[Kind, JsonObject], None],
    *,
    optional: Collection[Kind] = OPTIONAL_KINDS,
    listed: set[tuple[Kind, str | None]] | None = None,
) -> None:
    """Lists every kind and tells of what was different from the cache; raises ApiError when a listing fails.

    on_change: told as soon as the cache has it. The watch brings nothing new then, and neither does a second try after
    a listing that failed. optional: kinds of which nobody is told that they are not installed. listed: kinds and
    namespaces that a try before has listed, to which this one adds: of an API server that refuses every fifth call,
    two dozen listings would hardly ever succeed in one go.
    """
    listed = set() if listed is None else listed
    for kind in WATCHED_KINDS:
        for namespace in namespaces or (None,):
            if (kind, namespace) in listed:
                continue
            for body in await _resync_kind(cache, api, kind, namespace, optional=optional):
                on_change(kind, body)
            listed.add((kind, namespace))


async def _resync_kind(
    cache: Cache, api: Api, kind: Kind, namespace: str | None, *, optional: Collection[Kind]
) -> list[JsonObject]:
    try:
        items, version = await api.list(kind, namespace=namespace, selector=selector_of(kind))
    except ApiError as error:
        if not error.not_found:
            raise
        if kind.kind not in cache.missing_kinds and kind not in optional:
            _log.warning(
                "kind is not installed", extra={"action": "list", "why": f"{kind.plural}.{kind.group} is not known"}
            )
        cache.missing_kinds.add(kind.kind)
        return []
    cache.missing_kinds.discard(kind.kind)
    lost = cache.prune(kind, items, version, [namespace] if namespace is not None else [])
    return [body for body in items if cache.put(kind, body)] + lost
