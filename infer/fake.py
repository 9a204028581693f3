"""A fake backend without a model, for tests."""

import time

import numpy as np
from numpy.typing import NDArray

from ..core.card import Input, ModelCard, Preprocessing
from ..core.errors import BackendError
from .backend import Backend


class FakeBackend(Backend):
    """Keeps the contract of a backend: an image's class is the sum of its bytes modulo the number of classes.

    Tests of the code around a backend use it, and can make it slow or let it fail.
    """

    def __init__(
        self,
        *,
        size: Input | None = None,
        classes: int = 10,
        name: str = "fake",
        delay_s: float = 0.0,
        max_batch: int | None = None,
        fail_at_call: int | None = None,
        failure: Exception | None = None,
    ) -> None:
        """`delay_s`: duration of each call; `fail_at_call`: the call, counted from 0, that raises `failure`.

        `failure` None: a BackendError.
        """
        channels = (size or Input(32, 32, 3)).channels
        self.name, self.device, self.runs_on, self.max_batch = name, "cpu", "nothing: a fake", max_batch
        self.delay_s, self.fail_at_call, self.failure, self.calls = delay_s, fail_at_call, failure, 0
        self.card = ModelCard(
            name=name,
            arch="fake",
            dataset="fake",
            classes=tuple(f"class {k}" for k in range(classes)),
            input=size or Input(32, 32, 3),
            preprocessing=Preprocessing((0.5,) * channels, (0.25,) * channels),
        )

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls - 1 == self.fail_at_call:
            raise self.failure or BackendError(f"{self.name}: failed on purpose at call {self.fail_at_call}")
        time.sleep(self.delay_s)
        classes = len(self.card.classes)
        chosen_N = images_NHWC.reshape(len(images_NHWC), -1).sum(axis=1, dtype=np.int64) % classes
        return np.eye(classes, dtype=np.float32)[chosen_N] * 10
