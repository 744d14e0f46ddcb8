"""Logs of containers, read from the files that the kubelet lets them write."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alidade_local.apiserver.errors import bad_request
from alidade_local.apiserver.options import flag
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.settings import ApiServerSettings

Json = dict[str, Any]

_CHUNK_BYTES = 64 * 1024
_POLL_S = 0.2  # a file tells nobody that it grew; five looks a second feel immediate and cost nothing


@dataclass(frozen=True)
class LogOptions:
    """Parameters of a log request."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None

    @staticmethod
    def parse(query: Mapping[str, str]) -> "LogOptions":
        """The parameters of a query, or 400."""
        return LogOptions(
            container=query.get("container", ""),
            follow=flag(query, "follow"),
            previous=flag(query, "previous"),
            tail_lines=_whole(query, "tailLines"),
            limit_bytes=_whole(query, "limitBytes"),
        )


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise bad_request(f'{name} is "{text}"; it must be a whole number of 0 or more')
    return int(text)


class PodLog:
    """The log of one container of one pod."""

    def __init__(
        self, objects: Objects, target: Target, pod: Json, options: LogOptions, settings: ApiServerSettings
    ) -> None:
        self._objects = objects
        self._target = target
        self._pod = pod
        self._uid: str = pod["metadata"]["uid"]
        self._options = options
        self._folder = settings.pod_logs
        self._container = options.container
        self._restart = 0

    def check(self) -> None:
        """Find the container and its file, or 400 in the words of the original."""
        self._choose_container()
        status = self._status(self._pod)
        restarts = int(status.get("restartCount", 0))
        if self._options.previous:
            if restarts == 0:
                raise bad_request(
                    f'previous terminated container "{self._container}" in pod "{self._target.name}" not found'
                )
            self._restart = restarts - 1
            return
        self._restart = restarts
        if not self._path().exists():
            waiting = (status.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason") or ("ContainerCreating" if status else "PodInitializing")
            raise bad_request(
                f'container "{self._container}" in pod "{self._target.name}" is waiting to start: {reason}'
            )

    def _choose_container(self) -> None:
        spec = self._pod["spec"]
        main = [item["name"] for item in spec["containers"]]
        init = [item["name"] for item in spec.get("initContainers") or ()]
        name = self._target.name
        if not self._container:
            if len(main) + len(init) > 1:
                choices = f"choose one of: [{' '.join(main)}]"
                if init:
                    choices += f" or one of the init containers: [{' '.join(init)}]"
                raise bad_request(f"a container name must be specified for pod {name}, {choices}")
            self._container = main[0]
        elif self._container not in (*main, *init):
            raise bad_request(f"container {self._container} is not valid for pod {name}")

    def _status(self, pod: Json) -> Json:
        status = pod.get("status") or {}
        every = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
        found: Json = next((item for item in every if item.get("name") == self._container), {})
        return found

    def _path(self) -> Path:
        return self._folder / self._uid / self._container / f"{self._restart}.log"

    def _ended(self) -> bool:
        """Whether nothing will be appended any more."""
        resource = self._target.resource
        stored = self._objects.store.get(resource.key, self._target.namespace, self._target.name)
        if stored is None or stored.uid != self._uid:
            return True
        status = self._status(stored.obj)
        if int(status.get("restartCount", 0)) > self._restart or "terminated" in (status.get("state") or {}):
            return True
        return (stored.obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes asked for, as they come."""
        left = self._options.limit_bytes
        path = self._path()
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(_start_of_tail(path, self._options.tail_lines))
            while left is None or left > 0:
                ended = not self._options.follow or self._ended()  # looked up before reading: what came last is read
                chunk = file.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
                if chunk:
                    left = None if left is None else left - len(chunk)
                    yield chunk
                elif ended:
                    return
                else:
                    await asyncio.sleep(_POLL_S)


def _start_of_tail(path: Path, lines: int | None) -> int:
    """Offset at which the last so many lines begin."""
    if lines is None:
        return 0
    size = path.stat().st_size
    if lines == 0:
        return size
    with path.open("rb") as file:
        position, found = size, 0
        while position > 0:
            start = max(0, position - _CHUNK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            at = len(block)
            if position == size and block.endswith(b"\n"):
                at -= 1  # the newline that ends the last line begins no other
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == lines:
                    return start + at + 1
            position = start
    return 0
