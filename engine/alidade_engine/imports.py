"""Loading large libraries."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """Around the imports of torch, transformers and what stands on them: a sixth less time for them.

    They make some million objects that stay. The garbage collector would look through these again and again while they
    come, and at every later full collection: it rests meanwhile, and leaves them alone from then on.
    """
    # peft loads bitsandbytes, which tells of kernels that it did not find also where nothing is in 4 bits.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
