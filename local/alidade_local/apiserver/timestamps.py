"""Times as Kubernetes writes them."""

from datetime import UTC, datetime, timedelta


def now() -> str:
    """This moment, in RFC 3339 with whole seconds."""
    return shown(datetime.now(UTC))


def in_seconds(seconds: float) -> str:
    """The moment that many seconds from now."""
    return shown(datetime.now(UTC) + timedelta(seconds=seconds))


def shown(moment: datetime) -> str:
    """A moment in RFC 3339 with whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    """The moment of an RFC 3339 text, with or without fractions of seconds."""
    return datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
