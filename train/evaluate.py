"""Evaluate a model on labelled images, in fp32."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.card import Score
from .data.streamed_images import StreamedImages
from .distributed.process_group import ALONE, Processes

BATCH = 500


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images_NHWC: Tensor | StreamedImages,
    labels_N: Tensor,
    *,
    split: str,
    processes: Processes = ALONE,
) -> Score:
    """The accuracy and mean loss of `model`, in evaluation mode, over all images; no augmentation.

    Several processes share the batches among them, and all of them get exactly the score that one process alone gets.
    """
    model.eval()
    labels = labels_N.split(BATCH)
    mine = range(processes.rank, len(labels), processes.count)
    found_M2 = torch.zeros(len(labels), 2, dtype=torch.float64, device=labels_N.device)
    for number, images_BHWC in zip(mine, _batches(images_NHWC, mine), strict=True):
        logits_BK = model(images_BHWC)
        found_M2[number, 0] = (logits_BK.argmax(1) == labels[number]).sum()
        found_M2[number, 1] = F.cross_entropy(logits_BK, labels[number], reduction="sum")
    correct_M, loss_M = processes.summed(found_M2).T.tolist()
    return Score(split=split, correct=int(sum(correct_M)), total=len(labels_N), loss=sum(loss_M) / len(labels_N))


def _batches(images_NHWC: Tensor | StreamedImages, numbers: Iterable[int]) -> Iterator[Tensor]:
    """The batches with these numbers, in order; the last batch of the split may be smaller."""
    count = images_NHWC.shape[0]
    if isinstance(images_NHWC, StreamedImages):
        return images_NHWC.batches(np.arange(n * BATCH, min((n + 1) * BATCH, count)) for n in numbers)
    return (images_NHWC[n * BATCH : (n + 1) * BATCH] for n in numbers)
