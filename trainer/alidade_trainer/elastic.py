"""Starts this pod's training processes by torch elastic; run by the launcher as a process of its own."""

import os
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

SHUTDOWN_TIMEOUT_S = 120
"""How long processes may go on after a sibling has failed: long enough to notice, short against a GPU's hourly "
"price."""


def main(argv: Sequence[str]) -> int:
    """Runs argv[0] training processes in this pod; PET_* variables say how they meet those of other pods.

    Returns 0, or the exit code of the process that failed first (128 + N for signal N).
    """
    # The launcher asks for a stop by a file; a signal to the whole process group must not end the watch.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arguments = [
        f"--nproc-per-node={argv[0]}",
        "--max-restarts=0",  # the operator starts the next attempt, on all pods together
        f"--shutdown-timeout={SHUTDOWN_TIMEOUT_S}",
        "--signals-to-handle=SIGHUP",
        *_rendezvous(),
        "--module",
        "alidade_trainer.worker",
    ]
    config, command, command_arguments = config_from_args(parse_args(arguments))  # type: ignore[no-untyped-call]
    try:
        elastic_launch(config, command)(*command_arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode
    return 0


def _rendezvous() -> list[str]:
    """How the processes meet. On one machine they need no address that others know, nor a port that may be taken."""
    if os.environ.get("PET_NNODES", "1") != "1":
        return [f"--local-addr={os.environ['POD_IP']}"] if os.environ.get("POD_IP") else []
    return [
        "--nnodes=1",
        "--node-rank=0",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        f"--rdzv-id={uuid.uuid4()}",
        "--local-addr=127.0.0.1",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
