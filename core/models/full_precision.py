"""PyTorch's arithmetic in full fp32: without TF32 on GPUs, and without bf16 inside of fp32 operations on CPUs."""

import contextlib
from typing import Any

import torch

from ..process_settings import change, change_attribute, process_is_owned, put_back_attribute

BACKENDS: Any = torch.backends
"""PyTorch's types lack most of its attributes."""
OPERATIONS = (
    BACKENDS.cuda.matmul,
    BACKENDS.cudnn.conv,
    BACKENDS.cudnn.rnn,
    BACKENDS.mkldnn.matmul,
    BACKENDS.mkldnn.conv,
    BACKENDS.mkldnn.rnn,
)
FULL = ("none", "ieee")


def use_full_precision() -> None:
    """Switch reduced precision off until the outermost `settings_put_back` ends; in a command, for good.

    PyTorch has an older and a newer interface to these settings, and refuses to read the older one after a program has
    used the newer. What the older one can read is set by it: then both agree, which torch.compile needs.
    """
    if process_is_owned():
        BACKENDS.cuda.matmul.allow_tf32 = False
        BACKENDS.cudnn.allow_tf32 = False
        return
    with contextlib.suppress(RuntimeError):
        if torch.get_float32_matmul_precision() != "highest":
            put_back_attribute(BACKENDS.mkldnn.matmul, "fp32_precision")  # the older interface sets it, too
            change(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")
    with contextlib.suppress(RuntimeError):
        change_attribute(BACKENDS.cudnn, "allow_tf32", False)
    for operation in OPERATIONS:
        if operation.fp32_precision not in FULL:
            change_attribute(operation, "fp32_precision", "ieee")
