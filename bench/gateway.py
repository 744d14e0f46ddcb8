"""What the gateway costs: the same requests to a server that answers at once, directly and through `alidade-gateway`.

    python bench/gateway.py [--rounds 3]

Three loads, each directly and through the gateway in turn: short answers one after another, each on a connection of its
own (time to the first byte); short answers to clients that keep their connections (requests a second, and the gateway's
processor time for each); streams of server-sent events (the gateway's processor time for each event). The server is a
bare socket that computes nothing, so everything that is measured is transport. Medians over the rounds are printed and
written to bench/results/gateway.json.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.serving import free_port, processor  # noqa: E402  # the path is set above

RESULTS = ROOT / "bench/results/gateway.json"
PROMPT = json.dumps({"model": "bench", "messages": [{"role": "user", "content": "How high is it? " * 16}]}).encode()
ANSWER = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"8849 m"},"finish_reason":"stop"}]}'
EVENT = b'data: {"id":"x","model":"bench","choices":[{"index":0,"delta":{"content":"token"},"finish_reason":null}]}\n\n'
ALONE = 400
CLIENTS, REQUESTS_EACH = 32, 100
STREAMS, EVENTS, EVENT_INTERVAL_S = 32, 300, 0.02

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each load is measured (default: 3)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # the port of the server that computes nothing
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    results = measure(options.rounds)
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(rounds: int) -> dict[str, Any]:
    """Every load, directly and through the gateway, in turn."""
    direct, through = free_port(), free_port()
    command = [sys.executable, "-m", "alidade_gateway.main", "--name=bench", f"--stable=http://127.0.0.1:{direct}"]
    command += ["--host=127.0.0.1", f"--port={through}", "--drain-delay-s=0"]
    with (
        subprocess.Popen([sys.executable, __file__, f"--serve={direct}"]) as server,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as gateway,
    ):
        try:
            process = psutil.Process(gateway.pid)
            readings = asyncio.run(_rounds(rounds, {"direct": direct, "gateway": through}, process))
            memory_mib = process.memory_info().rss / 2**20
        finally:
            gateway.terminate()
            server.terminate()
    medians = {name: _medians(found) for name, found in readings.items()}
    machine = {"processor": processor(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    return {"machine": machine, "rounds": rounds, **medians, "gatewayMemoryMiB": round(memory_mib, 1)}


async def _rounds(rounds: int, ports: dict[str, int], gateway: psutil.Process) -> dict[str, list[dict[str, float]]]:
    readings: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
    for port in ports.values():
        await _answering(port)
    for _ in range(rounds):
        for name, port in ports.items():
            readings[name].append(await one_round(port, gateway))
    return readings


async def one_round(port: int, gateway: psutil.Process) -> dict[str, float]:
    """All loads once; times in milliseconds, processor time of the gateway in microseconds."""
    firsts = sorted([await ask(port, "/short") for _ in range(ALONE)])
    requests = CLIENTS * REQUESTS_EACH
    short_s, short_cpu_s = await _timed(gateway, lambda: _together(CLIENTS, port, ["/short"] * REQUESTS_EACH))
    stream_s, stream_cpu_s = await _timed(gateway, lambda: _together(STREAMS, port, ["/stream"]))
    return {
        "firstByteMsP50": firsts[len(firsts) // 2] * 1e3,
        "firstByteMsP95": firsts[len(firsts) * 95 // 100] * 1e3,
        "requestsPerSecond": requests / short_s,
        "cpuUsPerRequest": short_cpu_s / requests * 1e6,
        "eventsPerSecond": STREAMS * EVENTS / stream_s,
        "cpuUsPerEvent": stream_cpu_s / (STREAMS * EVENTS) * 1e6,
    }


async def _timed(gateway: psutil.Process, load: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """Wall clock, and the gateway's processor time meanwhile, in seconds."""
    before, begun = gateway.cpu_times(), time.perf_counter()
    await load()
    wall_s, after = time.perf_counter() - begun, gateway.cpu_times()
    return wall_s, max(0.0, after.user + after.system - before.user - before.system)


async def _together(clients: int, port: int, paths: list[str]) -> None:
    async def client() -> None:
        kept = await asyncio.open_connection("127.0.0.1", port)
        for path in paths:
            await ask(port, path, kept)
        kept[1].close()

    await asyncio.gather(*(client() for _ in range(clients)))


async def ask(port: int, path: str, kept: Connection | None = None) -> float:
    """Seconds to the first byte of the body; reads the rest. Fails when the answer is not whole."""
    begun = time.perf_counter()
    reader, writer = kept or await asyncio.open_connection("127.0.0.1", port)
    asked = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(PROMPT)}"
    writer.write(asked.encode() + b"\r\n\r\n" + PROMPT)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200 "), head
    if "content-length" in head:
        assert await reader.readexactly(len(ANSWER)) == ANSWER
        first_s = time.perf_counter() - begun
    else:
        events, first_s = 0, 0.0
        while size := int(await reader.readline(), 16):
            events += (await reader.readexactly(size + 2)).count(b"data: ")
            first_s = first_s or time.perf_counter() - begun
        await reader.readline()
        assert events == EVENTS
    if kept is None:
        writer.close()
    return first_s


async def _answering(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            await ask(port, "/short")
            return
        except OSError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(found[key] for found in rounds), 2) for key in rounds[0]}


async def serve(port: int) -> None:
    """Answers until it is killed."""
    listening = await asyncio.start_server(_answer, "127.0.0.1", port, backlog=1024)
    await listening.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(PROMPT))
            if head.startswith(b"POST /stream "):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for _ in range(EVENTS):
                    writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
                    await asyncio.sleep(EVENT_INTERVAL_S)
                writer.write(b"0\r\n\r\n")
            else:
                kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                writer.write(kind % len(ANSWER) + ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone, which is how clients end
    finally:
        writer.close()


if __name__ == "__main__":
    sys.exit(main())
