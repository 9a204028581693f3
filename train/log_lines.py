"""The lines that a training logs; each fits 80 columns."""

import textwrap
from collections.abc import Mapping
from typing import Any

from .device import Arithmetic
from .recipes import EVALUATED

LINE_COLUMNS = 80


def weights_line(start: str) -> str:
    """The initial weights, from their description."""
    return _filled(f"initial weights: {start}")


def pixels_line(text: str) -> str:
    """Which pixels the initial weights get, from its description."""
    return _filled(f"pixels: {text}")


def model_line(name: str, *, parameters: int, images: int, first_epoch: int, epochs: int) -> str:
    """The model, the size of its training split, and the epochs that this call trains."""
    return _filled(f"{name}: {parameters:,} parameters, {images:,} images, epochs {first_epoch} to {epochs}")


def machine_line(arithmetic: Arithmetic, compilation: str, *, processes: int) -> str:
    """Where and how the training computes."""
    text = f"{arithmetic.device}, {arithmetic.precision}, {compilation}"
    return _filled(text + (f", {processes} processes" if processes > 1 else ""))


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """Accuracy and loss of an epoch on each split, and its speed; on two lines if images are held out."""
    parts = [
        f"{name} {row[f'{name}_accuracy']:6.2%} loss {row[f'{name}_loss']:.4f}"
        for name in ("train", *EVALUATED)
        if f"{name}_accuracy" in row
    ]
    head = f"epoch {row['epoch']:3}/{epochs}"
    lines = [head]
    for part in (*parts, f"{row['images'] / row['epoch_s']:,.0f} img/s"):
        if len(lines[-1]) + 2 + len(part) > LINE_COLUMNS:
            lines.append(" " * len(head))
        lines[-1] += f"  {part}"
    return "\n".join(lines)


def early_stop_line(epoch: int, epochs: int, *, best: int) -> str:
    """That a training ended before its last epoch, and which epoch is kept."""
    return _filled(f"stopped early after epoch {epoch} of {epochs}; epoch {best} is the best on the held-out images")


def _filled(text: str) -> str:
    """The text on lines that fit; a longer word, such as a path, is not broken."""
    return textwrap.fill(text, LINE_COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
