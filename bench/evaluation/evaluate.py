"""An evaluation from a model's answers: all figures, and the images that a reader wants to see."""

import datetime
from collections.abc import Iterable

import numpy as np

from ...core.data.datasets import Split
from ...core.machine import this_machine
from ...infer.backend import Backend
from ..measure.contenders import RanFile
from ..pictures import picture_of
from .answers import Answers
from .calibration import Scores, calibration_of, scores_of
from .figures import (
    TOP,
    class_figures,
    confused_pairs,
    confusion_of,
    macro_average,
    top_correct,
    weighted_average,
    wilson_interval,
)
from .result import Evaluation, LabelledData, ShownImage

SHOWN = 24
"""Images in each gallery."""


def evaluation_of(backend: Backend, answers: Answers, split: Split, *, file: RanFile, data: LabelledData) -> Evaluation:
    """Every figure of the answers of `backend` to the images of `split`. `file`: what the backend ran."""
    card, classes = backend.card, len(backend.card.classes)
    temperature = card.temperature
    logits_NK, labels_N = answers.logits_NK, answers.labels_N
    scores = scores_of(logits_NK, labels_N, temperature=temperature)
    right_N = scores.predictions_N == labels_N
    correct = int(right_N.sum())
    confusion_KK = confusion_of(labels_N, scores.predictions_N, classes)
    figures = class_figures(confusion_KK, card.classes)
    surest_first = np.argsort(-scores.confidences_N, kind="stable")
    least_sure_first = np.argsort(scores.confidences_N, kind="stable")
    return Evaluation(
        card=card,
        file=file,
        backend=backend.name,
        runs_on=backend.runs_on,
        device=backend.device,
        precision=backend.precision or card.precision,
        machine=this_machine(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        data=data,
        images=len(labels_N),
        correct=correct,
        accuracy_interval=wilson_interval(correct, len(labels_N)),
        top5_correct=top_correct(logits_NK, labels_N) if classes > TOP else None,
        classes=figures,
        macro=macro_average(figures),
        weighted=weighted_average(figures),
        confusion=tuple(map(tuple, confusion_KK.tolist())),
        pairs=confused_pairs(confusion_KK),
        calibration=calibration_of(logits_NK, labels_N, temperature=temperature),
        uncalibrated=calibration_of(logits_NK, labels_N) if temperature != 1 else None,
        surest_wrong=_shown(surest_first[~right_N[surest_first]][:SHOWN].tolist(), answers, scores, split),
        least_sure_right=_shown(least_sure_first[right_N[least_sure_first]][:SHOWN].tolist(), answers, scores, split),
    )


def _shown(indices: Iterable[int], answers: Answers, scores: Scores, split: Split) -> tuple[ShownImage, ...]:
    return tuple(
        ShownImage(
            index=index,
            name=answers.name(index),
            label=int(answers.labels_N[index]),
            prediction=int(scores.predictions_N[index]),
            confidence=float(scores.confidences_N[index]),
            label_probability=float(np.exp(scores.label_log_N[index])),
            picture=picture_of(split, index),
        )
        for index in indices
    )
