"""Frames of SPDY/3.1, as far as port-forward takes them (SPDY Protocol draft 3.1, sections 2.2 and 2.6).

There is no flow control in it: neither kubectl nor kubelets heed windows.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GO_AWAY = 1, 2, 3, 6, 7
_FIN = 0x01
_LONGEST_HEADERS = 64 * 1024

# Draft 3.1, section 2.6.10.1: words with their lengths in front, and then text without.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
    "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 "
    "Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec "
    "00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()) + _TEXT.encode()
)
"""What both sides' compression of headers starts from."""


class SpdyError(Exception):
    """Bytes that are no SPDY, or more than is taken."""


@dataclass(frozen=True)
class Opened:
    """SYN_STREAM: a new stream. fin: nothing will be sent on it."""

    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True)
class Data:
    """DATA of a stream. fin: the last of it."""

    stream: int
    payload: bytes
    fin: bool


@dataclass(frozen=True)
class Reset:
    """RST_STREAM: the stream is given up."""

    stream: int


@dataclass(frozen=True)
class Ping:
    """PING: to be answered with the same number."""

    number: int


Frame = Opened | Data | Reset | Ping


class Decoder:
    """Bytes to frames. Frames that port-forward has no use for (SETTINGS, HEADERS, ...) are left out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes; raises SpdyError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, rest = struct.unpack_from(">II", self._buffer)
            end = 8 + (rest & 0xFFFFFF)
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[8:end])
            del self._buffer[:end]
            fin = bool(rest >> 24 & _FIN)
            frame = self._control(first, body, fin=fin) if first >> 31 else Data(first, body, fin)
            if frame is not None:
                yield frame

    def _control(self, first: int, body: bytes, *, fin: bool) -> Frame | None:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"a frame of SPDY version {version}; this is version {_VERSION}")
        shortest = {_SYN_STREAM: 10, _RST_STREAM: 8, _PING: 4}.get(kind)
        if shortest is None:
            return None
        if len(body) < shortest:
            raise SpdyError(f"a frame of type {kind} has {len(body)} bytes, too few")
        number = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF if kind != _PING else struct.unpack_from(">I", body)[0]
        if kind == _SYN_STREAM:
            return Opened(number, self._parse_headers(body[10:]), fin)
        return Reset(number) if kind == _RST_STREAM else Ping(number)

    def _parse_headers(self, compressed: bytes) -> dict[str, str]:
        try:
            block = self._headers.decompress(compressed, _LONGEST_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers that cannot be decompressed: {error}") from error
        if self._headers.unconsumed_tail:
            raise SpdyError(f"headers of more than {_LONGEST_HEADERS} bytes")
        try:
            (count,) = struct.unpack_from(">I", block)
            texts, at = [], 4
            for _ in range(2 * count):
                (length,) = struct.unpack_from(">I", block, at)
                texts.append(block[at + 4 : at + 4 + length].decode())
                at += 4 + length
        except (struct.error, UnicodeDecodeError) as error:
            raise SpdyError(f"headers that are cut off: {error}") from error
        return dict(zip(texts[::2], texts[1::2], strict=True))


class Encoder:
    """Frames to bytes."""

    def __init__(self) -> None:
        self._headers = zlib.compressobj(zdict=DICTIONARY)

    def opened(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """SYN_STREAM of a new stream."""
        return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._pack(headers))

    def reply(self, stream: int) -> bytes:
        """SYN_REPLY without headers: the stream is taken."""
        return _control(_SYN_REPLY, struct.pack(">I", stream) + self._pack({}))

    def _pack(self, headers: Mapping[str, str]) -> bytes:
        block = struct.pack(">I", len(headers))
        for text in (text.encode() for pair in headers.items() for text in pair):
            block += struct.pack(">I", len(text)) + text
        return self._headers.compress(block) + self._headers.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    """DATA of a stream."""
    return struct.pack(">II", stream, (_FIN if fin else 0) << 24 | len(payload)) + payload


def ping(number: int) -> bytes:
    """The answer to a PING."""
    return _control(_PING, struct.pack(">I", number))


def reset(stream: int) -> bytes:
    """RST_STREAM with status CANCEL."""
    return _control(_RST_STREAM, struct.pack(">II", stream, 5))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | _VERSION, kind, len(body)) + body
