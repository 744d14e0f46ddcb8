"""TensorBoard's event files, read as TensorBoard reads them."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def events(folder: Path) -> Iterator[Event]:
    """What the event files of a folder say, in order. They are of TFRecords: length, its checksum, record, checksum."""
    for file in sorted(folder.glob("events.*")):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name as TensorBoard shows them: a start makes void what was said from its step on."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            found = {name: [one for one in curve if one[0] < event.step] for name, curve in found.items()}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
