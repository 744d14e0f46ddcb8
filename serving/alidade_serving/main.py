"""`alidade-serve`: one model behind HTTP, until it is told to end."""

import logging
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM. Exit code 1 when the model cannot be served, 2 for settings that do not go together."""
    from alidade_serving.front.lines import write_lines
    from alidade_serving.settings import read_settings

    settings = read_settings(argv, os.environ)
    write_lines()
    # Prompts come one by one: handing each to a pool of threads costs more than it saves.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Imported here so that --help and mistakes in the settings answer at once.
    import uvloop

    from alidade_engine.imports import large_imports

    with large_imports():
        from alidade_engine.failures import JobFailure
        from alidade_serving.front.refusals import Refusal
        from alidade_serving.serving import serve

    try:
        uvloop.run(serve(settings, lambda address: logging.getLogger("alidade_serving").info("listening: %s", address)))
    except (JobFailure, Refusal, RuntimeError, ValueError, OSError) as error:
        print(f"alidade-serve: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
