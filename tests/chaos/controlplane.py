"""Controllers, scheduler and kubelet of a local cluster as a process of their own: `python -m … KUBECONFIG DATA_DIR`.

In `alidade up` they live and die with the API server. Apart, either can be killed while the other goes on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from alidade_local.bootstrap import set_up_cluster
from alidade_local.client import ApiClient, KubeConfig
from alidade_local.control_plane import start_control_plane
from alidade_local.kubelet.kubelet import end_leftover_processes
from alidade_local.kubelet.settings import KubeletSettings


async def _serve(kubeconfig: Path, data_dir: Path) -> None:
    settings = KubeletSettings(data_dir, first_backoff_s=0.2)
    end_leftover_processes(settings)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with ApiClient(KubeConfig.load(kubeconfig)) as client:
        await set_up_cluster(client)
        plane = await start_control_plane(client, settings)
        print("the control plane is up", flush=True)
        failure = asyncio.create_task(plane.failure())
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait([failure, stop], return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            raise failure.result()
        await plane.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
