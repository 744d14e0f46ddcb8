"""As much of the hub's HTTP API as its client needs to make a repository and commit to it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_writer"


@dataclass
class Repository:
    """files: by path. commits: the summary of each, the oldest first."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        """A commit's name, which any change changes."""
        return hashlib.sha1(json.dumps([len(self.commits), sorted(self.files)]).encode()).hexdigest()


@dataclass
class Hub:
    """failing: how many of the next commits are answered 503."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    failing: int = 0


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        repository = self._repository()
        if repository is None:
            self._answer(404, {}, "RepoNotFound")
        elif "/tree/" in self.path:
            files = repository.files.items()
            tree = [{"type": "file", "path": name, "size": len(body), "oid": _git_digest(body)} for name, body in files]
            self._answer(200, tree)
        else:
            name = self.path.removeprefix("/api/models/").partition("/revision")[0]
            self._answer(200, {"id": name, "sha": repository.head, "siblings": []})

    def do_PUT(self) -> None:
        self.hub.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, {})

    def do_POST(self) -> None:
        body, repository = self._body(), self._repository()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(403, {"error": "you may not"})
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif repository is None:
            self._answer(404, {}, "RepoNotFound")
        elif "/preupload/" in self.path:
            self._preupload(repository, json.loads(body))
        elif self.hub.failing:
            self.hub.failing -= 1
            self._answer(503, {"error": "busy"})
        else:
            self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.hub.repositories
        if not known:
            self.hub.repositories[name] = Repository(asked["visibility"] == "private")
        self._answer(409 if known else 200, {"url": f"{self.hub.address}/{name}"})

    def _preupload(self, repository: Repository, asked: dict[str, Any]) -> None:
        answers = []
        for one in asked["files"]:
            is_large, known = one["path"].endswith(".safetensors"), repository.files.get(one["path"])
            digest = hashlib.sha256(known or b"").hexdigest() if is_large else _git_digest(known or b"")
            mode = "lfs" if is_large else "regular"
            oid = digest if known is not None else None
            answers.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer(200, {"files": answers})

    def _batch(self, asked: dict[str, Any]) -> None:
        found = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{self.hub.address}/objects/{one['oid']}"}}
            found.append(one | ({} if one["oid"] in self.hub.objects else {"actions": upload}))
        self._answer(200, {"transfer": "basic", "objects": found})

    def _commit(self, repository: Repository, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del repository.files[value["path"]]
        repository.commits.append(lines[0]["value"]["summary"])
        head, name = repository.head, "/".join(self.path.split("/")[3:5])
        self._answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{head}", "commitOid": head, "success": True})

    def _repository(self) -> Repository | None:
        return self.hub.repositories.get("/".join(self.path.split("/")[3:5]))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, document: Any, code: str = "") -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays the test's."""


def _git_digest(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
