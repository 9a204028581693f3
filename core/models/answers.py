"""Whether a new model answers at all: a few generated images, one finite logit for each class."""

import torch

from ..card import ModelCard
from ..library_errors import reason_of
from ..probe import probe_images
from .model import Model, tensor_from_images

PROBES = 3
"""Images that it must answer; one of each kind of probe."""


def answer_problem(model: Model, card: ModelCard) -> str:
    """Return why a model in evaluation mode is none for images of the card's size and its classes; empty if it is."""
    size = f"images of {card.input.height} x {card.input.width}"
    try:
        with torch.inference_mode():
            logits_NK = model(tensor_from_images(probe_images(PROBES, card.input)))
    except RuntimeError as error:
        return f"{card.arch} cannot compute {size}: {reason_of(error)}; choose another --image-size"
    if tuple(logits_NK.shape) != (PROBES, len(card.classes)):
        found = " x ".join(map(str, logits_NK.shape))
        return f"{card.arch} answers {PROBES} images with {found} numbers; expected {PROBES} x {len(card.classes)}"
    if not bool(logits_NK.isfinite().all()):
        return f"the logits of generated {size} are not finite; check --arch and --preprocess"
    return ""
