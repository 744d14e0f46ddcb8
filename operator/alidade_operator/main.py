"""The entry point: `alidade-operator`, or `kopf run -A -m alidade_operator.main`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from alidade_operator import kopf_glue
from alidade_operator.config import CONFIG_ENV, ConfigError, load_config
from alidade_operator.logs import configure_logs


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="alidade-operator",
        description="Serves the resources of alidade.dev in the cluster of KUBECONFIG, or the one it runs in. "
        f"The environment variable {CONFIG_ENV} names its configuration file.",
    )
    parser.parse_args(argv)
    try:
        config = load_config()
        kopf_glue.log_in()
    except (ConfigError, kopf_glue.LoginError) as error:
        print(f"alidade-operator: {error}", file=sys.stderr)
        return 1
    configure_logs(config.log_level)
    asyncio.run(kopf_glue.serve(config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
