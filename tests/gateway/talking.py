"""Two model servers, a gateway whose arena compares them, and those who ask and vote there."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.gateway.running import Gateway, Reply, ask
from tests.ports import free_port
from tests.serving.running import HttpProcess

COMPARISONS = "/arena/api/comparisons"
JSON = {"Content-Type": "application/json"}
_TALKER = str(Path(__file__).with_name("talker.py"))


class Talker(HttpProcess):
    """A model server that says its name."""

    def __init__(self, name: str, port: int | None = None) -> None:
        self.name = name
        super().__init__([_TALKER, name, str(port or free_port())], "Running on ")

    def asked(self) -> list[dict[str, Any]]:
        """Every request for an answer so far."""
        found: list[dict[str, Any]] = json.loads(self.get("/asked")[1])
        return found


class Talkers(ExitStack):
    """`one` and `two`, which are there until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (self._started(name) for name in ("one", "two"))

    def _started(self, name: str) -> Talker:
        talker = Talker(name)
        self.callback(talker.kill)
        return talker

    def open(self, gate: str) -> None:
        """Lets answers go on that wait at a gate."""
        for talker in (self.one, self.two):
            talker.get(f"/open/{gate}")


class Arena(ExitStack):
    """A gateway, served name `tiny`, before talkers `one` (stable) and `two` (the other ModelServe)."""

    def __init__(self, talkers: Talkers, votes: Path, **flags: object) -> None:
        super().__init__()
        self.one, self.two = talkers.one, talkers.two
        self.votes = votes
        self._flags = {
            "chat": "true",
            "arena": "true",
            "arena_against": self.two.url,
            "arena_against_name": "two",
            "stable_model": "pvc://models/one",
            "arena_against_model": "pvc://models/two",
            "votes": votes,
            **flags,
        }
        self.gateway = self.another_gateway()

    def another_gateway(self) -> Gateway:
        """One more before the same servers and votes, as there is for a while when it is replaced."""
        gateway = Gateway(self.one.url, **self._flags)
        self.callback(gateway.kill)
        return gateway

    @property
    def url(self) -> str:
        return self.gateway.url

    def post(self, path: str, document: Any, headers: dict[str, str] | None = None) -> Reply:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return ask(self.url, path, body, headers={**JSON, **(headers or {})})

    def compare(self, message: str, after: str | None = None) -> "Compared":
        """Asks both."""
        reply = self.post(COMPARISONS, {"message": message, **({"after": after} if after else {})})
        assert reply.status == 200, reply.body
        return Compared([json.loads(line[6:]) for line in reply.body.splitlines() if line.startswith(b"data: ")])

    def vote(self, identifier: str, verdict: Any) -> Reply:
        return self.post(f"{COMPARISONS}/{identifier}/vote", {"vote": verdict})

    def ratings(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.url, "/arena/api/ratings", None, "GET").json()
        return found

    def records(self, pattern: str = "votes-*.jsonl") -> list[dict[str, Any]]:
        """What lies on the disk."""
        files = sorted(self.votes.rglob(pattern))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


class Compared:
    """What the events of a comparison said."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.id: str = events[0]["id"]
        self.answered: bool = events[-1]["answered"]
        self.texts = {
            side: "".join(event["text"] for event in events if event.get("side") == side and "text" in event)
            for side in ("left", "right")
        }
        self.failed = {event["side"]: event["failed"] for event in events if "failed" in event}

    def side_of(self, name: str) -> str:
        """Where the answer of a talker stands."""
        (side,) = (side for side, text in self.texts.items() if text.startswith(name))
        return side
