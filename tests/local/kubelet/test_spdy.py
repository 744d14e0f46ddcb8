"""Frames of SPDY, taken apart and put together."""

from __future__ import annotations

import struct
import zlib

import pytest

from alidade_local.kubelet import spdy

HEADERS = {"streamtype": "data", "port": "8080", "requestid": "0"}


def frames(*parts: bytes) -> list[spdy.Frame]:
    decoder = spdy.Decoder()
    return [frame for part in parts for frame in decoder.feed(part)]


def test_the_dictionary_is_that_of_the_protocol() -> None:
    # Every zlib stream of SPDY/3 begins with 78 bb and this checksum of the dictionary.
    assert (len(spdy.DICTIONARY), zlib.adler32(spdy.DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_what_is_put_together_is_taken_apart() -> None:
    encoder = spdy.Encoder()
    sent = encoder.opened(1, HEADERS) + encoder.opened(3, {"streamtype": "error", "port": "80", "requestid": "1"})
    sent += spdy.data(1, b"hello") + spdy.data(1, b"", fin=True) + spdy.ping(2**31 + 1) + spdy.reset(3)
    expected = [
        spdy.Opened(1, HEADERS, fin=False),
        spdy.Opened(3, {"streamtype": "error", "port": "80", "requestid": "1"}, fin=False),
        spdy.Data(1, b"hello", fin=False),
        spdy.Data(1, b"", fin=True),
        spdy.Ping(2**31 + 1),
        spdy.Reset(3),
    ]
    assert frames(sent) == expected
    assert frames(*(bytes([byte]) for byte in sent)) == expected


def test_frames_without_use_are_left_out() -> None:
    settings = struct.pack(">HHI", 0x8003, 4, 4) + struct.pack(">I", 0)
    assert frames(settings + spdy.data(1, b"x")) == [spdy.Data(1, b"x", fin=False)]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (struct.pack(">HHI", 0x8002, 1, 0), "SPDY version 2; this is version 3"),
        (struct.pack(">HHI", 0x8003, 1, 4) + bytes(4), "type 1 has 4 bytes, too few"),
        (struct.pack(">HHI", 0x8003, 1, 20) + bytes(20), "cannot be decompressed"),
        (b"GET /", None),
        (b"GET / HTTP/1.1\r\n\r\n", None),
    ],
)
def test_what_is_no_spdy_is_refused_or_waited_for(sent: bytes, message: str | None) -> None:
    if message is None:
        assert frames(sent) == []
        return
    with pytest.raises(spdy.SpdyError, match=message):
        frames(sent)


def _with_headers(block: bytes) -> bytes:
    compress = zlib.compressobj(zdict=spdy.DICTIONARY)
    body = struct.pack(">IIH", 1, 0, 0) + compress.compress(block) + compress.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack(">HHI", 0x8003, 1, len(body)) + body


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (bytes(2**20), "headers of more than 65536 bytes"),
        (struct.pack(">III", 1, 1, 2**31), "headers that are cut off"),
        (b"", "headers that are cut off"),
        (struct.pack(">II", 2**31, 4) + b"name", "headers that are cut off"),
    ],
)
def test_headers_that_are_too_long_or_cut_off_are_refused(block: bytes, message: str) -> None:
    with pytest.raises(spdy.SpdyError, match=message):
        frames(_with_headers(block))
