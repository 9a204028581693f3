"""Made-up evaluations: the figures of random answers to random images."""

import dataclasses

import numpy as np
from rtk.bench.evaluation.answers import Answers
from rtk.bench.evaluation.compare import comparison_of
from rtk.bench.evaluation.evaluate import evaluation_of
from rtk.bench.evaluation.result import Comparison, Evaluation, LabelledData
from rtk.bench.measure.contenders import RanFile
from rtk.core.data.datasets import Split
from rtk.infer.fake import FakeBackend

FILE = RanFile("models/best.onnx", "0123456789abcdef" * 4)
DATA = LabelledData("shapes", "test", 0)


def made_up(
    classes: int = 10,
    images: int = 600,
    *,
    accuracy: float = 0.8,
    temperature: float = 1.0,
    names: tuple[str, ...] = (),
    files: tuple[str, ...] = (),
    seed: int = 0,
) -> Evaluation:
    """An evaluation with about this accuracy, or exactly with 0 or 1. `names`: of the classes."""
    backend, answers, split = _answered(
        classes, images, accuracy=accuracy, temperature=temperature, names=names, files=files, seed=seed
    )
    data = dataclasses.replace(DATA, images=images)
    return evaluation_of(backend, answers, split, file=FILE, data=data)


def compared(classes: int = 10, images: int = 600, *, changed: bool = True, names: tuple[str, ...] = ()) -> Comparison:
    """Two evaluations on the same images, and what changed."""
    results = []
    for seed in (0, 1 if changed else 0):
        backend, answers, split = _answered(
            classes, images, accuracy=0.8, temperature=1.0, names=names, files=(), seed=seed
        )
        data = dataclasses.replace(DATA, images=images)
        results.append((evaluation_of(backend, answers, split, file=FILE, data=data), answers))
    (first, first_answers), (second, second_answers) = results
    return comparison_of(first, first_answers, second, second_answers, split)


def _answered(
    classes: int,
    images: int,
    *,
    accuracy: float,
    temperature: float,
    names: tuple[str, ...],
    files: tuple[str, ...],
    seed: int,
) -> tuple[FakeBackend, Answers, Split]:
    backend = FakeBackend(classes=classes)
    backend.card = dataclasses.replace(
        backend.card, classes=names or backend.card.classes, temperature=temperature, name=f"network {seed}"
    )
    random = np.random.default_rng(7)
    labels_N = random.integers(classes, size=images)
    split = Split(random.integers(256, size=(images, 8, 8, 3), dtype=np.uint8), labels_N)
    random = np.random.default_rng(seed)
    wrong_N = random.random(images) >= accuracy
    # Mistakes are near the label, as those of real classes that are alike.
    shifts_N = 1 + (random.geometric(0.4, images) - 1) % max(1, classes - 1)
    answers_N = np.where(wrong_N, (labels_N + shifts_N) % classes, labels_N)
    logits_NK = random.normal(size=(images, classes)).astype(np.float32)
    logits_NK = logits_NK.clip(-3, 3)
    logits_NK[np.arange(images), answers_N] += random.exponential(4, images) + (2 if accuracy % 1 else 7)
    return backend, Answers(logits_NK, labels_N, files), split
