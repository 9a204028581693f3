"""Score: a model's answers on labelled images, in fp32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.card import Score

BATCH = 500


@torch.inference_mode()
def evaluate(model: nn.Module, images_NHWC: Tensor, labels_N: Tensor, *, split: str) -> Score:
    """Count the right answers of `model`, in evaluation mode, over all of the images; no augmentation."""
    model.eval()
    correct, loss_sum = 0, 0.0
    for images_BHWC, labels_B in zip(images_NHWC.split(BATCH), labels_N.split(BATCH), strict=True):
        logits_BK = model(images_BHWC)
        correct += int((logits_BK.argmax(1) == labels_B).sum())
        loss_sum += float(F.cross_entropy(logits_BK, labels_B, reduction="sum"))
    return Score(split=split, correct=correct, total=len(labels_N), loss=loss_sum / len(labels_N))
