"""Where a local cluster keeps what it needs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alidade_local.errors import ClusterError

DEFAULT_NAME = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster, all below `data_dir`."""

    data_dir: Path

    @classmethod
    def named(cls, name: str = DEFAULT_NAME, environ: Mapping[str, str] = os.environ) -> ClusterPaths:
        """The folder of a cluster by its name: `$ALIDADE_HOME/<name>`, or `~/.alidade/<name>`.

        Raises ClusterError for a name that is not one of a folder.
        """
        if not _NAME.fullmatch(name):
            raise ClusterError(
                f"the name of the cluster is {name!r}; use letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit"
            )
        home = environ.get("ALIDADE_HOME")
        return cls((Path(home) if home else Path.home() / ".alidade") / name)

    def create(self) -> None:
        """Make the folder, closed to other users: it holds tokens, keys and the contents of Secrets.

        Raises ClusterError for a folder that cannot be written, or that is in use for something else.
        """
        self.check_is_own()
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.data_dir.chmod(0o700)
            self.lock.touch()
        except OSError as error:
            raise ClusterError(
                f"{self.data_dir} cannot be written ({error.strerror}); "
                "set ALIDADE_HOME to a folder that can, or change its permissions"
            ) from error

    def check_is_own(self) -> None:
        """Raise ClusterError for a folder that holds something, but not a cluster: a purge would delete that too."""
        if self.data_dir.is_dir() and not self.lock.exists() and any(self.data_dir.iterdir()):
            raise ClusterError(
                f"{self.data_dir} holds files, but not those of a cluster; "
                "name a folder that is empty or does not exist"
            )

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    @property
    def log(self) -> Path:
        """What the daemon prints."""
        return self.data_dir / "cluster.log"

    @property
    def operator_log(self) -> Path:
        return self.data_dir / "operator.log"

    @property
    def operator_config(self) -> Path:
        return self.data_dir / "operator.yaml"

    @property
    def lock(self) -> Path:
        """Locked by the daemon as long as it lives."""
        return self.data_dir / "lock"

    @property
    def daemon(self) -> Path:
        """Which process the daemon is (its id and start time)."""
        return self.data_dir / "daemon.json"

    @property
    def ready(self) -> Path:
        """The same as `daemon`, written once the cluster can be used."""
        return self.data_dir / "ready.json"

    @property
    def operator_process(self) -> Path:
        """Which process the operator is (its id and start time)."""
        return self.data_dir / "operator.json"

    @property
    def port(self) -> Path:
        """The port of the API server, kept so that kubeconfig files stay valid over restarts."""
        return self.data_dir / "port"

    @property
    def token(self) -> Path:
        return self.data_dir / "token"

    @property
    def objects(self) -> Path:
        """The objects of the local API server (its `data_dir` is this one's)."""
        return self.data_dir / "state.db"

    @property
    def etcd(self) -> Path:
        """Where a real API server keeps its objects and logs, and both its processes run."""
        return self.data_dir / "etcd"

    @property
    def pods(self) -> Path:
        return self.data_dir / "pods"

    @property
    def volumes(self) -> Path:
        return self.data_dir / "volumes"
