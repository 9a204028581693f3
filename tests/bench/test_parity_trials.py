"""Every candidate is asked again, in batches of many sizes, and about images that are not in the test split."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from rtk.bench.parity.reference import Reference
from rtk.bench.parity.trials import altered_images, sizes_to_try
from rtk.bench.parity.verdict import judge
from rtk.core.card import Input
from rtk.core.data.datasets import Split
from rtk.core.errors import BackendError, ParityError
from rtk.core.probe import probe_images
from rtk.infer.fake import FakeBackend

SIZE = Input(8, 8, 3)
IMAGES = 8_000
"""Enough for the margin of fp32, which needs 7,680."""
Fault = Callable[[NDArray[np.float32], NDArray[np.uint8], int], NDArray[np.float32]]
"""Changes the logits of a batch, by its images and the number of the call."""


class Linear(FakeBackend):
    """Ten linear functions of the pixels. `fault` changes the logits of a batch."""

    def __init__(
        self, fault: Fault | None = None, *, max_batch: int | None = None, opt_batch: int | None = None
    ) -> None:
        super().__init__(size=SIZE, max_batch=max_batch)
        self.fault, self.opt_batch, self.sizes = fault, opt_batch, list[int]()
        self._weights = np.random.default_rng(0).normal(0, 0.02, (SIZE.height * SIZE.width * 3, 10))

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.calls += 1
        self.sizes.append(len(images_NHWC))
        pixels_ND = images_NHWC.reshape(len(images_NHWC), -1).astype(np.float64) - 127.5
        logits_NK = (pixels_ND @ self._weights).astype(np.float32)
        return self.fault(logits_NK, images_NHWC, self.calls) if self.fault else logits_NK


@pytest.fixture(scope="module")
def reference() -> Reference:
    images_NHWC = probe_images(IMAGES, SIZE)
    labels_N = Linear()(images_NHWC).argmax(axis=1).astype(np.int64)
    return Reference.of(Linear(), Split(images_NHWC, labels_N))


def failed(reference: Reference, candidate: FakeBackend, precision: str, *, timed: tuple[int, ...] = ()) -> list[str]:
    """The checks that the candidate fails."""
    parity = reference.parity_of("candidate", candidate, precision=precision, timed=timed)
    return [check.name for check in judge(parity, precision=precision).checks if check.outcome == "failed"]


ALL = ("fp32", "fp16", "bf16", "int8")
IN_EVERY_BATCH, OFF_THE_SPLIT = "the same in every batch", "right off the test split"


@pytest.mark.parametrize("precision", ALL)
def test_a_correct_candidate_passes(reference: Reference, precision: str) -> None:
    assert failed(reference, Linear(), precision, timed=(8, 256)) == []


def negated_unless(sizes: set[int]) -> Fault:
    return lambda logits_NK, images_NHWC, call: logits_NK if len(images_NHWC) in sizes else -logits_NK


@pytest.mark.parametrize("precision", ALL)
def test_a_graph_that_is_right_in_batches_of_one_size_only_is_refused(reference: Reference, precision: str) -> None:
    """250 divides the number of images: the whole test split is answered in batches of that size."""
    assert IN_EVERY_BATCH in failed(reference, Linear(negated_unless({250})), precision)


@pytest.mark.parametrize("precision", ALL)
@pytest.mark.parametrize("size", [1, 13, 8, 96])
def test_a_graph_that_is_wrong_in_batches_of_one_size_is_refused(
    reference: Reference, precision: str, size: int
) -> None:
    every = set(range(2_000)) - {size}
    assert failed(reference, Linear(negated_unless(every)), precision, timed=(8, 96)) == [IN_EVERY_BATCH]


def test_a_shorter_last_batch_is_tried(reference: Reference) -> None:
    """256 images in batches of 64 leave no rest, so the trial takes half a batch more."""
    seen = Linear()
    reference.parity_of("candidate", seen, precision="fp32", timed=(64,))
    assert {1, 13, 256 % 13, 64, 32} <= set(seen.sizes)
    assert failed(reference, Linear(negated_unless(set(range(2_000)) - {32})), "int8") == [IN_EVERY_BATCH]


@pytest.mark.parametrize("precision", ALL)
def test_an_image_that_is_answered_otherwise_at_the_end_of_a_batch_is_refused(
    reference: Reference, precision: str
) -> None:
    def last_repeats(logits_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        wrong_NK = logits_NK.copy()
        if len(logits_NK) not in (1, 250):
            wrong_NK[-1] = wrong_NK[-2]
        return wrong_NK

    assert failed(reference, Linear(last_repeats), precision) == [IN_EVERY_BATCH]


def test_the_best_and_the_largest_batch_of_an_engine_are_tried(reference: Reference) -> None:
    engine = Linear(max_batch=300, opt_batch=96)
    assert sizes_to_try(engine, (8, 1_024)) == (1, 8, 13, 64, 96, 300)
    reference.parity_of("candidate", engine, precision="fp32")
    assert {96, 300} <= set(engine.sizes)
    assert sizes_to_try(Linear(max_batch=4)) == (1, 4)
    wrong = Linear(negated_unless(set(range(300))), max_batch=300)
    assert failed(reference, wrong, "fp32") == [IN_EVERY_BATCH]


@pytest.mark.parametrize("precision", ALL)
def test_a_graph_that_answers_by_chance_is_refused(reference: Reference, precision: str) -> None:
    """Noise of 0.1 on logits with a deviation of about 20 would pass as the error of int8 and bf16."""
    random = np.random.default_rng(0)
    noise = 0.1 * reference.logits_NK.std() / 6  # as large, relative to the logits, as 0.1 in a trained network

    def noisy(logits_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        return (logits_NK + random.normal(0, noise, logits_NK.shape)).astype(np.float32)

    assert IN_EVERY_BATCH in failed(reference, Linear(noisy), precision)


@pytest.mark.parametrize("precision", ALL)
def test_a_graph_that_changes_its_mind_is_refused(reference: Reference, precision: str) -> None:
    turn = IMAGES // 250

    def turned(logits_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        return logits_NK if call <= turn else logits_NK[:, ::-1]

    assert IN_EVERY_BATCH in failed(reference, Linear(turned), precision)


@pytest.mark.parametrize("precision", ALL)
def test_a_table_of_the_test_split_is_refused(reference: Reference, precision: str) -> None:
    """It knows the answer to every image of the split, and the nearest answer to no other."""
    known = {hashlib.sha256(image.tobytes()).digest() for image in reference.split.images_NHWC}

    def looked_up(logits_NK: NDArray[np.float32], images_NHWC: NDArray[np.uint8], call: int) -> NDArray[np.float32]:
        found_N = np.array([hashlib.sha256(image.tobytes()).digest() in known for image in images_NHWC])
        return np.where(found_N[:, None], logits_NK, 0).astype(np.float32)

    assert failed(reference, Linear(looked_up), precision) == [OFF_THE_SPLIT]


class Failing(Linear):
    """Batches of some sizes fail."""

    def __init__(self, sizes: set[int], reason: str, *, max_batch: int | None = None) -> None:
        super().__init__(max_batch=max_batch)
        self.failing, self.reason = sizes, reason

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images_NHWC) in self.failing:
            raise RuntimeError(self.reason)
        return super()._run(images_NHWC)


@pytest.mark.parametrize(
    ("size", "reason", "refused"),
    [
        (512, "CUDA out of memory. Tried to allocate 2.00 GiB", False),
        (512, "the profile does not fit", True),
        (64, "CUDA out of memory. Tried to allocate 2.00 GiB", True),  # batches of 250 fitted
        (1, "a fixed batch size", True),
    ],
)
def test_a_batch_that_fails_is_refused_unless_it_is_large_and_runs_out_of_memory(
    reference: Reference, size: int, reason: str, refused: bool
) -> None:
    candidate = Failing({size}, reason)
    parity = reference.parity_of("candidate", candidate, precision="fp32", timed=(512,))
    check = next(one for one in judge(parity, precision="fp32").checks if one.name == IN_EVERY_BATCH)
    assert check.passed is not refused, check.text
    assert ("out of GPU memory" if "memory" in reason else reason) in check.text
    assert failed(reference, Failing({300}, "the profile does not fit", max_batch=300), "fp32") == [IN_EVERY_BATCH]


def test_a_graph_with_another_number_of_logits_than_its_card_says_fails_in_one_line(reference: Reference) -> None:
    wider = Linear(lambda logits_NK, images_NHWC, call: np.column_stack([logits_NK, logits_NK[:, 0]]))
    with pytest.raises(BackendError, match="fake: 11 logits per image, expected 10, as its card says"):
        reference.parity_of("candidate", wider, precision="fp32")


def test_what_16_bits_cost_is_measured_on_images_of_all_classes_for_the_precisions_of_the_candidates() -> None:
    """The images are sorted by class, as those of a folder are."""

    class Rounded(Linear):
        seen: NDArray[np.uint8]

        def rounded(self, images_NHWC: NDArray[np.uint8], precision: str) -> NDArray[np.float32]:
            self.seen = images_NHWC
            return self(images_NHWC) * np.float32({"fp16": 1.001, "bf16": 1.01}[precision])

    images_NHWC = probe_images(1_000, SIZE)
    labels_N = Linear()(images_NHWC).argmax(axis=1).astype(np.int64)
    by_class = np.argsort(labels_N, kind="stable")
    split = Split(images_NHWC[by_class], labels_N[by_class])
    backend = Rounded()
    assert Reference.of(backend, split, precisions=("fp32",)).expected_errors == {}
    found = Reference.of(backend, split, precisions=("int8", "fp16")).expected_errors
    assert set(found) == {"fp16", "bf16"}
    assert found["bf16"] == pytest.approx(10 * found["fp16"], rel=1e-2)
    assert set(Linear()(backend.seen).argmax(axis=1)) == set(labels_N)


def test_altered_images_are_mirrored_moved_and_not_in_the_split(reference: Reference) -> None:
    images_NHWC = reference.split.images_NHWC
    altered = altered_images(images_NHWC)
    assert altered.shape == (500, *SIZE.shape)
    assert altered.flags.c_contiguous
    ramp = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    (moved,) = altered_images(ramp)
    mirrored = moved[:, ::-1, 0]
    inside = [
        (y, x) for y in range(-3, 4) for x in range(-3, 4) if y and x and mirrored[4, 4] == ramp[0, 4 - y, 4 - x, 0]
    ]
    assert len(inside) == 1
    with_texture = images_NHWC[1::3]  # noise: every move makes another image
    known = {image.tobytes() for image in with_texture}
    assert not known & {image.tobytes() for image in altered_images(with_texture)}


def test_trials_are_left_out_of_a_verdict_only_where_answers_are_missing(reference: Reference) -> None:
    class Forgetful(Linear):
        def stream(self, batches: object) -> object:  # type: ignore[override]
            return list(super().stream(batches))[:-1]  # type: ignore[arg-type]

    assert failed(reference, Forgetful(), "fp32")[:1] == ["every image answered once"]


def test_few_images_are_repeated_in_large_batches() -> None:
    images_NHWC = probe_images(40, SIZE)
    few = Reference.of(Linear(), Split(images_NHWC, np.zeros(40, np.int64)))
    assert failed(few, Linear(max_batch=300), "fp32") == []
    assert failed(few, Linear(negated_unless(set(range(300))), max_batch=300), "fp32") == [IN_EVERY_BATCH]


@pytest.mark.parametrize("field", ["classes", "preprocessing"])
def test_a_card_that_differs_from_the_references_is_refused(reference: Reference, field: str) -> None:
    candidate = Linear()
    classes = candidate.card.classes
    other = {
        "classes": (*classes[1:], classes[0]),
        "preprocessing": replace(candidate.card.preprocessing, mean=(0.4, 0.5, 0.5)),
    }
    candidate.card = replace(candidate.card, **{field: other[field]})  # type: ignore[arg-type]
    for precision in ALL:
        parity = reference.parity_of("candidate", candidate, precision=precision)
        assert parity.same_answers
        with pytest.raises(ParityError, match=f"no parity .*: the reference's card: its card has other {field}"):
            judge(parity, precision=precision).enforce()
