"""Evaluate a model on labelled images, in fp32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.card import Score
from .distributed.process_group import ALONE, Processes

BATCH = 500


@torch.inference_mode()
def evaluate(
    model: nn.Module, images_NHWC: Tensor, labels_N: Tensor, *, split: str, processes: Processes = ALONE
) -> Score:
    """The accuracy and mean loss of `model`, in evaluation mode, over all images; no augmentation.

    Several processes share the batches among them, and all of them get exactly the score that one process alone gets.
    """
    model.eval()
    batches = list(zip(images_NHWC.split(BATCH), labels_N.split(BATCH), strict=True))
    found_M2 = torch.zeros(len(batches), 2, dtype=torch.float64, device=labels_N.device)
    for number in range(processes.rank, len(batches), processes.count):
        images_BHWC, labels_B = batches[number]
        logits_BK = model(images_BHWC)
        found_M2[number, 0] = (logits_BK.argmax(1) == labels_B).sum()
        found_M2[number, 1] = F.cross_entropy(logits_BK, labels_B, reduction="sum")
    correct_M, loss_M = processes.summed(found_M2).T.tolist()
    return Score(split=split, correct=int(sum(correct_M)), total=len(labels_N), loss=sum(loss_M) / len(labels_N))
