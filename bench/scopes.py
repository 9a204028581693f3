"""Scopes: what is timed."""

from typing import Literal

Scope = Literal["compute", "sync", "stream", "files"]
SCOPES: dict[Scope, tuple[str, str]] = {
    "compute": ("compute", "images and logits stay on the device: the arithmetic alone"),
    "sync": (
        "host to host",
        "uint8 images in host memory to float32 logits in host memory, copies included, one batch after the other",
    ),
    "stream": (
        "host to host, streaming",
        "the same with several batches on their way; a sample is the time from one batch's logits to the next's",
    ),
    "files": (
        "files to labels",
        "PNG files read, decoded in processes of their own, and classified; a sample is the time from one batch of "
        "labels to the next",
    ),
}
"""What each scope is called, and what is timed in it."""
