"""Events go when they are old news."""

from datetime import UTC, datetime, timedelta

from alidade_local.apiserver.event_expiry import expire
from tests.local.apiserver.conftest import Api

EVENTS = "/api/v1/namespaces/default/events"


async def test_events_go_an_hour_after_they_happened_last(api: Api) -> None:
    now = datetime.now(UTC)
    for name, minutes in (("old", 61), ("repeated", 59)):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name},
            "involvedObject": {"namespace": "default", "name": "x", "kind": "Pod"},
            "lastTimestamp": (now - timedelta(minutes=minutes)).isoformat(),
        }
        await api.post(EVENTS, event)
    assert expire(api.server.store, now + timedelta(minutes=2), 3600) == 0, "they were written just now"
    assert expire(api.server.store, now + timedelta(minutes=59, seconds=59), 3600) == 0
    await api.server.store.committed()
    assert expire(api.server.store, now + timedelta(minutes=62), 3600) == 2
    await api.server.store.committed()
    assert (await api.get(EVENTS))["items"] == []
