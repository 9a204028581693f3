"""Images of a split as pictures in a page."""

import base64

from ..core.data.datasets import Split
from ..core.data.images import encoded_image


def picture_of(split: Split, index: int) -> str:
    """The image as the model reads it: PNG in base64."""
    return base64.b64encode(encoded_image(split.part(slice(index, index + 1))[0])).decode()
