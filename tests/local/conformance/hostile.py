"""Bytes that are no request of this API, and what there is to say to them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from tests.local.conformance.servers import Server

PATH = "/api/v1/namespaces/default/configmaps"
_DEEP = 100_000
Wire = Callable[[Server], bytes]


def said(server: Server, wire: bytes) -> bytes:
    """What the server says to bytes, up to where it falls silent or hangs up."""
    host, port = server.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(server.kubeconfig.parent / "pki" / "ca.crt"))
    with context.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname=host) as client:
        answer = b""
        try:
            client.sendall(wire)
            while not answer.endswith(b"}") and (part := client.recv(65536)):
                answer += part
        except OSError:  # it hung up while more was sent
            pass
        return answer


def request(first_line: str, *, body: bytes = b"", media: str = "application/json", head: bytes = b"") -> Wire:
    """A request of the cluster's administrator."""

    def wire(server: Server) -> bytes:
        headers = f"Host: h\r\nAuthorization: {server.headers['Authorization']}\r\nContent-Type: {media}\r\n"
        length = f"Content-Length: {len(body)}\r\n" if b"ontent-Length" not in head and b"chunked" not in head else ""
        return f"{first_line} HTTP/1.1\r\n{headers}{length}".encode() + head + b"\r\n" + body

    return wire


def with_token(token: bytes) -> Wire:
    """A request of somebody else."""
    return lambda server: b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: h\r\nAuthorization: " + token + b"\r\n\r\n"


def post(body: bytes, media: str = "application/json") -> Wire:
    """A creation."""
    return request(f"POST {PATH}", body=body, media=media)


_YAML_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)

STATUSES: dict[str, tuple[Wire, int]] = {
    "a body over 3 MiB": (post(b'{"metadata":{"name":"' + b"a" * 3 * 1024 * 1024 + b'"}}'), 413),
    "a body that says it is over 3 MiB": (request(f"POST {PATH}", head=b"Content-Length: 3145729\r\n"), 413),
    "chunks over 3 MiB": (
        request(
            f"POST {PATH}", head=b"Transfer-Encoding: chunked\r\n", body=(b"10000\r\n" + b"a" * 65536 + b"\r\n") * 50
        ),
        413,
    ),
    "objects in objects": (post(b'{"a":' * _DEEP + b"1" + b"}" * _DEEP), 400),
    "lists in lists": (post(b"[" * _DEEP), 400),
    "objects nested just over the limit": (
        post(b'{"metadata":{"name":"a"},"data":' + b'{"a":' * 110 + b"1" + b"}" * 111),
        400,
    ),
    "YAML in YAML": (post(b"[" * _DEEP, "application/yaml"), 400),
    "a few lines of YAML that are a billion values": (post(_YAML_BOMB, "application/yaml"), 400),
    "YAML that contains itself": (post(b"a: &a [*a]", "application/yaml"), 400),
    "tags of Python in YAML": (post(b"!!python/object/apply:os.getcwd []", "application/yaml"), 400),
    "half a JSON": (post(b'{"metadata":'), 400),
    "bytes that are no UTF-8": (post(b'{"metadata":{"name":"\xff\xfe"}}'), 400),
    "half a character": (post(b'{"metadata":{"name":"a"},"data":{"a":"\\ud800"}}'), 400),
    "a number of 100,000 digits": (post(b'{"metadata":{"name":"a","generation":' + b"9" * _DEEP + b"}}"), 400),
    "packed bytes": (request(f"POST {PATH}", body=b"\x1f\x8b\x08", head=b"Content-Encoding: gzip\r\n"), 400),
    "no protobuf": (post(b"k8s\x00\xff\xff\xff\xff", "application/vnd.kubernetes.protobuf"), 400),
    "protobuf of another program": (post(b"\x0a\x03abc", "application/vnd.kubernetes.protobuf"), 400),
    "a content type nobody reads": (post(b"<a/>", "application/xml"), 415),
    "a content type that is none": (post(b"x", ";;;"), 415),
    "a patch type nobody reads": (request(f"PATCH {PATH}/a", body=b"<a/>", media="application/xml"), 415),
    "an answer nobody writes": (request(f"GET {PATH}", head=b"Accept: text/html\r\n"), 406),
    "a version that is not there": (request("GET /apis/apps/v9/deployments"), 404),
    "a path out of the API": (request("GET /api/v1/namespaces/../../../etc/passwd"), 404),
    "a name that is no text": (request(f"GET {PATH}/%ff%00"), 404),
    "a method of another protocol": (request(f"CONNECT {PATH}"), 405),
    "a selector that is none": (request(f"GET {PATH}?labelSelector=(((("), 400),
    "a field selector that is none": (request(f"GET {PATH}?fieldSelector=%00"), 400),
    "a continue token of another server": (request(f"GET {PATH}?continue=AAAA"), 400),
    "no token": (with_token(b""), 401),
    "a token of another cluster": (with_token(b"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."), 401),
    "a token that is no text": (with_token(b"Bearer \xff\xfe"), 401),
    "a password": (with_token(b"Basic YWRtaW46YWRtaW4="), 401),
}
# Not HTTP: as from Go's server, a line of text.
NO_HTTP: dict[str, Wire] = {
    "noise": lambda server: b"\x00\x01\x02noise\r\n\r\n",
    "a line of 200,000 characters": request(f"GET /{'a' * 200_000}"),
    "a header of 200,000 characters": request(f"GET {PATH}", head=b"X: " + b"a" * 200_000 + b"\r\n"),
    "2,000 headers": request(f"GET {PATH}", head=b"".join(b"X%d: y\r\n" % n for n in range(2_000))),
    "two lengths": request(f"POST {PATH}", head=b"Content-Length: 1\r\nContent-Length: 2\r\n"),
    "a length and chunks": request(f"POST {PATH}", head=b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "a length below nothing": request(f"POST {PATH}", head=b"Content-Length: -1\r\n"),
}


def code_of(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])
