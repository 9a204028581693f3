"""The images whose answers changed, as PNG in base64: small enough to travel inside a report."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from ...core.data.datasets import Split
from ..parity.compare import Parity


def pictures_of(split: Split, parity: Sequence[Parity]) -> dict[str, str]:
    """By index in the split: those among each backend's worst images that got another answer than the reference's."""
    changed = {one.index for each in parity for one in each.worst if one.candidate != one.reference}
    return {str(index): _png(split, index) for index in sorted(changed)}


def _png(split: Split, index: int) -> str:
    image_HWC = split.images_NHWC[index]
    buffer = io.BytesIO()
    Image.fromarray(image_HWC if image_HWC.shape[2] == 3 else image_HWC[..., 0]).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
