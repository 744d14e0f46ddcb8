"""Files of web servers: what comes has the digest that was named, or nothing does."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alidade_crds.contract import HOSTS_ENV
from alidade_crds.hosts import HostPolicy
from alidade_crds.reasons import FailureReason
from alidade_crds.uris import with_digest
from alidade_engine import web
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations

RECORDS = b'{"prompt": "2+2?", "response": "4"}\n' * 9000
HERE = HostPolicy(allowed=("127.0.0.1",))

Answer = Callable[["Server"], None]


class Server(BaseHTTPRequestHandler):
    """Answers by script: one entry per request, the last one again and again."""

    script: list[Answer]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Range', 'whole')}")
        answer = self.script[min(len(self.asked), len(self.script)) - 1]
        answer(self)

    def send(self, code: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are recorded."""


def whole(body: bytes) -> Answer:
    return lambda server: server.send(200, body)


def half(body: bytes) -> Answer:
    """A connection that closes in the middle."""
    return lambda server: server.send(200, body[: len(body) // 2], len(body))


def rest(body: bytes) -> Answer:
    """As a server does that can go on from where it is asked to."""

    def answer(server: Server) -> None:
        start = int(server.headers["Range"].removeprefix("bytes=").rstrip("-"))
        server.send(206, body[start:])

    return answer


def status(code: int) -> Answer:
    return lambda server: server.send(code)


def moved(address: str) -> Answer:
    return lambda server: server.send(302, Location=address)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WAIT_S", 0.0)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Starts a server with a script; answers its address and what it is asked."""
    started: list[ThreadingHTTPServer] = []

    def start(*script: Answer) -> tuple[str, list[str]]:
        handler = type("Scripted", (Server,), {"script": list(script), "asked": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}", handler.asked

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path / "volumes", tmp_path / "scratch", tmp_path / "cache", HERE)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def left(tmp_path: Path) -> list[str]:
    """What the cache holds, locks apart."""
    cache = tmp_path / "cache" / "web"
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once_and_kept_under_its_digest(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path
) -> None:
    address, asked = serve(whole(RECORDS))
    uri = with_digest(f"{address}/data/train.jsonl?version=3", sha256(RECORDS))
    path = locations.resolve_data(uri)
    assert path.read_bytes() == RECORDS
    assert path.name == "train.jsonl"
    assert locations.resolve_data(uri) == path
    assert asked == ["/data/train.jsonl?version=3 whole"]
    assert left(tmp_path) == [sha256(RECORDS)]


@pytest.mark.parametrize("name", ["%2e%2e", ".", "a%00b", "..%2f..%2f.."])
def test_a_name_that_is_none_does_not_name_the_file(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, name: str
) -> None:
    address, _ = serve(whole(RECORDS))
    path = locations.resolve_data(with_digest(f"{address}/{name}", sha256(RECORDS)))
    assert path.name == "file"
    assert path.is_relative_to(locations.cache)


@pytest.mark.parametrize(
    ("script", "asked"),
    [
        ([half(RECORDS), rest(RECORDS)], ["whole", f"bytes={len(RECORDS) // 2}-"]),
        ([half(RECORDS), whole(RECORDS)], ["whole", f"bytes={len(RECORDS) // 2}-"]),
        ([status(503), status(429), whole(RECORDS)], ["whole"] * 3),
    ],
    ids=["taken up", "begun anew by a server that cannot", "busy"],
)
def test_what_breaks_off_is_taken_up_again(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, script: list[Answer], asked: list[str]
) -> None:
    address, requests = serve(*script)
    path = locations.resolve_data(with_digest(f"{address}/train.jsonl", sha256(RECORDS)))
    assert path.read_bytes() == RECORDS
    assert requests == [f"/train.jsonl {one}" for one in asked]


def test_a_later_process_goes_on_where_the_one_before_broke_off(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations
) -> None:
    address, _ = serve(half(RECORDS), status(500))
    uri = with_digest(f"{address}/train.jsonl", sha256(RECORDS))
    with pytest.raises(JobFailure, match=r"the server answered 500 .* \(5 tries\)") as caught:
        locations.resolve_data(uri)
    assert caught.value.retryable
    address, asked = serve(rest(RECORDS))
    assert locations.resolve_data(with_digest(f"{address}/t.jsonl", sha256(RECORDS))).read_bytes() == RECORDS
    assert asked == [f"/t.jsonl bytes={len(RECORDS) // 2}-"]


def test_what_is_whole_already_is_not_asked_for_again(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path
) -> None:
    """As after a process that was killed between the last byte and the file's name."""
    address, asked = serve(status(416))
    cache = tmp_path / "cache" / "web"
    cache.mkdir(parents=True)
    (cache / f".{sha256(RECORDS)}.part").write_bytes(RECORDS)
    path = locations.resolve_data(with_digest(f"{address}/train.jsonl", sha256(RECORDS)))
    assert path.read_bytes() == RECORDS
    assert asked == [f"/train.jsonl bytes={len(RECORDS)}-"]


def test_another_file_than_the_one_named_is_refused_and_not_kept(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path
) -> None:
    address, _ = serve(whole(b"another"))
    with pytest.raises(JobFailure) as caught:
        locations.resolve_data(with_digest(f"{address}/train.jsonl", sha256(RECORDS)))
    assert caught.value.reason == FailureReason.DIGEST_MISMATCH
    assert not caught.value.retryable
    for part in (f"dataset.uri is {address}/train.jsonl;", sha256(b"another"), f"{sha256(RECORDS)} is expected"):
        assert part in caught.value.message
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (
            "http://169.254.169.254/latest/meta-data",
            "169.254.169.254 may not be asked: it points to 169.254.169.254, the ",
        ),
        ("http://localhost:1/x", "localhost may not be asked: it points to localhost, this machine itself"),
        ("http://10.0.0.1/x", "10.0.0.1 may not be asked: it points to 10.0.0.1, a private address"),
        ("http://vault.default.svc/x", "vault.default.svc may not be asked"),
    ],
)
def test_a_redirection_to_a_host_that_addresses_may_not_name_is_not_followed(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, target: str, why: str
) -> None:
    address, asked = serve(moved(target))
    with pytest.raises(JobFailure, match=why.replace(".", r"\.")) as caught:
        locations.resolve_data(with_digest(f"{address}/a.jsonl", sha256(RECORDS)))
    assert caught.value.reason == FailureReason.CONFIG_INVALID
    assert len(asked) == 1


def test_other_redirections_are_followed(serve: Callable[..., tuple[str, list[str]]], locations: Locations) -> None:
    storage, _ = serve(whole(RECORDS))
    address, _ = serve(moved(f"{storage}/blob"))
    path = locations.resolve_data(with_digest(f"{address}/a.jsonl", sha256(RECORDS)))
    assert path.name == "a.jsonl", "its shape is told by the name in the address"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(404, "which does not exist"), (403, "access was refused"), (400, "the server answered 400")],
)
def test_what_the_server_says_is_told(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, code: int, sentence: str
) -> None:
    address, asked = serve(status(code))
    with pytest.raises(JobFailure, match=f"dataset.uri is {address}/a.jsonl.*{sentence}"):
        locations.resolve_data(with_digest(f"{address}/a.jsonl", sha256(RECORDS)))
    assert len(asked) == 1


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as opened:
            for name, body in files.items():
                opened.writestr(name, body)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind.endswith("gz") else "w") as archive:
            for name, body in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "zip"])
def test_a_model_comes_in_an_archive(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path, kind: str
) -> None:
    body = packed(kind, {"kbqa/config.json": b"{}", "kbqa/model.safetensors": b"weights"})
    address, _ = serve(whole(body))
    folder = locations.resolve_model(with_digest(f"{address}/kbqa.{kind}", sha256(body)))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }
    assert left(tmp_path) == [sha256(body)]


def test_an_archive_cannot_write_outside_its_folder(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path
) -> None:
    body = packed("tar", {"../../../stolen": b"x", "config.json": b"{}"})
    address, _ = serve(whole(body))
    with pytest.raises(JobFailure, match=r"it cannot be unpacked: '../../../stolen' is no file within it"):
        locations.resolve_model(with_digest(f"{address}/m.tar", sha256(body)))
    body = packed("zip", {"../../../stolen": b"x", "config.json": b"{}"})
    address, _ = serve(whole(body))
    folder = locations.resolve_model(with_digest(f"{address}/m.zip", sha256(body)))
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert not list(tmp_path.rglob("stolen"))


def test_an_archive_with_a_link_is_refused(
    serve: Callable[..., tuple[str, list[str]]], locations: Locations, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    address, _ = serve(whole(buffer.getvalue()))
    with pytest.raises(JobFailure, match=r"'config\.json' is no file within it"):
        locations.resolve_model(with_digest(f"{address}/m.tar", sha256(buffer.getvalue())))
    assert not list(tmp_path.rglob("config.json"))


def test_a_model_that_is_one_file_is_refused_before_it_is_fetched(locations: Locations) -> None:
    with pytest.raises(JobFailure, match=r"a model of the web is an archive: \.tar, \.tar\.gz"):
        locations.resolve_model(with_digest("https://example.org/model.safetensors", sha256(b"")))


def test_files_elsewhere_are_compared_with_their_digest_too(locations: Locations, tmp_path: Path) -> None:
    file = tmp_path / "volumes" / "data" / "train.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(RECORDS)
    assert locations.resolve_data(with_digest("pvc://data/train.jsonl", sha256(RECORDS))) == file
    with pytest.raises(JobFailure, match=f"sha256 {sha256(RECORDS)}, and {sha256(b'')} is expected"):
        locations.resolve_data(with_digest("pvc://data/train.jsonl", sha256(b"")))
    with pytest.raises(JobFailure, match="a folder, and a sha256 is set"):
        locations.resolve_data(with_digest("pvc://data", sha256(b"")))


def test_a_pod_is_told_which_hosts_may_be_asked() -> None:
    policy = HostPolicy(True, ("10.1.0.0/16", "*.corp"), frozenset({"mlops"}))
    assert Locations.from_environment({HOSTS_ENV: policy.to_json()}).hosts == policy
    assert Locations.from_environment({}).hosts == HostPolicy()
