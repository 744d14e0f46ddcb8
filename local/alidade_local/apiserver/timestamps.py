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


def duration(seconds: float) -> str:
    """A span of time as `kubectl get` shows it: `45s`, `3m10s`, `5h`, `2d4h`."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 120:
        return f"{max(whole, 0)}s"
    minutes, hours = whole // 60, whole // 3600
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def age(text: str | None) -> str:
    """How long ago a moment was, as `kubectl get` shows it."""
    if not text:
        return "<unknown>"
    try:
        return duration((datetime.now(UTC) - parsed(text)).total_seconds())
    except ValueError:
        return "<invalid>"
