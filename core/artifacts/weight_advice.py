"""What to do with a weight file that was named where a checkpoint is expected: the command that makes one of it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from .weight_files import StateDict
from .weight_fit import architecture_in


def import_command(path: Path, states: Sequence[StateDict]) -> str:
    """Return the command that imports the weights; it names the architecture if the layers are those of one."""
    arch = architecture_in(states)
    options = "--classes FILE --preprocess imagenet --image-size 224 --out DIR"
    return f"rtk import {shlex.quote(str(path))} --arch {arch or 'ARCH'} {options}"
