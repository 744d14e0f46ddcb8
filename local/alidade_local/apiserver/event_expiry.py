"""Events are news: they are deleted when they have not happened again for an hour, as in the original."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.storage import Store

Json = dict[str, Any]

EVENTS_KEY = "events."


def last_seen(event: Json) -> datetime:
    """When the event happened last."""
    series = (event.get("series") or {}).get("lastObservedTime")
    candidates = (series, event.get("lastTimestamp"), event.get("eventTime"), event["metadata"]["creationTimestamp"])
    return max(timestamps.parsed(text) for text in candidates if text)


def expire(store: Store, now: datetime, kept_for_s: float) -> int:
    """Delete the events that are older than that; returns how many."""
    oldest = now - timedelta(seconds=kept_for_s)
    expired = [stored for stored in store.all(EVENTS_KEY) if last_seen(stored.obj) < oldest]
    for stored in expired:
        store.delete(EVENTS_KEY, stored)
    return len(expired)


async def run(store: Store, kept_for_s: float) -> None:
    """Expire events once a minute until cancelled."""
    while True:
        expire(store, datetime.now(UTC), kept_for_s)
        await asyncio.sleep(60)
