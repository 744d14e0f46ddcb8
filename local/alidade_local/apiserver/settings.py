"""What an API server is started with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alidade_local.apiserver.auth import UserInfo


@dataclass(frozen=True)
class ApiServerSettings:
    """Where the server keeps its objects, where it listens, who may speak to it, and its limits."""

    data_dir: Path
    """Folder of the object database (`state.db`); created when absent."""
    tls_cert: Path
    """PEM certificate chain for the address it listens on."""
    tls_key: Path
    """PEM private key of `tls_cert`."""
    tokens: Mapping[str, UserInfo] = field(repr=False)
    """Bearer token to user; a request without one of these is answered 401."""
    pod_logs: Path
    """Folder with `<pod uid>/<container>/<restart count>.log`, read by `kubectl logs`."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 0
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: int = 3 * 1024 * 1024
    """Larger request bodies are refused with 413 (the limit of kube-apiserver)."""
    headers_timeout_s: float = 32.0
    """A connection whose first request's headers take longer is closed (the number of kube-apiserver)."""
    request_timeout_s: float = 60.0
    """A request whose body takes longer is answered 504 (the number of kube-apiserver)."""
    max_nesting: int = 100
    """Objects nested deeper than this are refused; the original's limit for custom resources is about the same."""
    history_per_resource: int = 2048
    """Changes kept per resource for watches that resume; older resource versions are answered 410 Gone."""
    watch_queue_events: int = 20_000
    """A watcher that falls this many events behind is disconnected and resumes from its last resource version."""
    bookmark_interval_s: float = 60.0
    """How often watchers that asked for bookmarks get one."""
    default_watch_timeout_s: float = 1800.0
    """Length of a watch that names no timeoutSeconds (the original takes 30 to 60 minutes)."""
    events_kept_s: float = 3600.0
    """Events (the objects) are deleted when they have not happened again for so long."""
