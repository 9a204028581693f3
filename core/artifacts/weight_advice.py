"""What to do with a weight file that was named where a checkpoint is expected: the command that makes one of it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..models.recognise import architecture_of
from .weight_files import StateDict
from .weight_fit import bare_names


def import_command(path: Path, states: Sequence[StateDict]) -> str:
    """Return the command that imports the weights; it names the architecture if the layers are those of one."""
    arch = next((arch for state in states if (arch := architecture_of(bare_names(state.tensors)))), None)
    options = "--classes FILE --preprocess imagenet --image-size 224 --out DIR"
    return f"rtk import {shlex.quote(str(path))} --arch {arch or 'ARCH'} {options}"
