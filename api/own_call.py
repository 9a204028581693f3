"""What surrounds every function that computes in the process of a user's program."""

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np

from ..core.process_settings import put_back, put_back_in_environment, settings_put_back


@contextlib.contextmanager
def own_call() -> Iterator[None]:
    """Put back at the end of the block the settings of the process, and the states of its random numbers."""
    with settings_put_back():
        put_back(random.getstate, random.setstate)
        put_back(np.random.get_state, np.random.set_state)
        put_back_in_environment("TORCHINDUCTOR_CACHE_DIR")  # PyTorch itself sets it
        if torch := sys.modules.get("torch"):
            put_back(torch.get_rng_state, torch.set_rng_state)
        yield
