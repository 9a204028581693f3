"""Parity counts the changed answers, image by image."""

import numpy as np
import pytest
from rtk.bench.parity.compare import Changed, all_logits, check_labels, compare
from rtk.core.card import Input
from rtk.core.data.datasets import Split
from rtk.core.errors import DataError
from rtk.core.probe import probe_images
from rtk.infer.fake import FakeBackend

LABELS_N = np.array([0, 1, 2, 0])
REFERENCE_NK = np.array([[9, 0, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0]], np.float32)  # right, right, wrong, wrong


def test_identical_logits_change_no_answer() -> None:
    parity = compare("same", REFERENCE_NK, REFERENCE_NK.copy(), LABELS_N)
    assert (parity.reference_correct, parity.candidate_correct, parity.agreeing) == (2, 2, 4)
    assert (parity.lost, parity.won, parity.largest_difference) == (0, 0, 0)
    assert parity.same_answers


def test_every_kind_of_change_is_counted() -> None:
    candidate_NK = np.array([[0, 9, 0], [0, 8, 0], [0, 0, 9], [0, 0, 9]], np.float32)
    parity = compare("other", REFERENCE_NK, candidate_NK, LABELS_N)
    assert parity.candidate_correct == 2  # images 1 and 2
    assert parity.lost == 1  # image 0
    assert parity.won == 1  # image 2
    assert parity.agreeing == 1  # image 1; image 3 went from wrong to otherwise wrong
    assert parity.largest_difference == 9
    assert parity.mean_difference == pytest.approx((18 + 1 + 18 + 18) / 12)
    assert not parity.same_answers


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_never_right(poison: float) -> None:
    candidate_NK = REFERENCE_NK.copy()
    candidate_NK[0, 0] = poison
    parity = compare("poisoned", REFERENCE_NK, candidate_NK, LABELS_N)
    assert parity.not_finite == 1
    assert parity.candidate_correct == 1
    assert parity.lost == 1
    assert parity.agreeing == 3
    assert not parity.same_answers


@pytest.mark.parametrize("max_batch", [None, 7])
def test_all_images_are_answered_in_order(max_batch: int | None) -> None:
    images_NHWC = probe_images(521, Input(4, 4, 1))
    advanced: list[int] = []
    logits_NK = all_logits(FakeBackend(size=Input(4, 4, 1), max_batch=max_batch), images_NHWC, advance=advanced.append)
    expected_N = images_NHWC.reshape(521, -1).sum(axis=1, dtype=np.int64) % 10
    assert logits_NK.argmax(axis=1).tolist() == expected_N.tolist()
    assert sum(advanced) == 521


def test_classes_in_another_order_are_refused() -> None:
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]))
    check_labels(("cat", "dog"), split, ("cat", "dog"), name="pets")
    with pytest.raises(DataError, match="pets: its classes are not the model's: found 'dog', expected 'cat'"):
        check_labels(("cat", "dog"), split, ("dog", "cat"), name="pets")
    with pytest.raises(DataError, match="found '3 classes', expected '2'"):
        check_labels(("cat", "dog"), split, ("cat", "dog", "eel"), name="pets")


def test_a_label_out_of_range_is_refused() -> None:
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2]))
    with pytest.raises(DataError, match="pets: label 2 found, expected 0 to 1"):
        check_labels(("cat", "dog"), split, ("cat", "dog"), name="pets")


def test_changed_answers_are_counted_by_class() -> None:
    candidate_NK = np.array([[0, 9, 0], [0, 8, 0], [0, 9, 0], [0, 0, 9]], np.float32)
    parity = compare("other", REFERENCE_NK, candidate_NK, LABELS_N)
    assert parity.confusion == (Changed(0, 1, 2), Changed(1, 2, 1))
    assert parity.changed == 3


def test_the_worst_images_come_first_lost_ones_before_otherwise_changed_ones() -> None:
    candidate_NK = np.array([[9, 0, 0], [0, 8, 9], [0, 99, 0], [0, 9, 0]], np.float32)
    candidate_NK[3, 2] = np.nan
    worst = compare("other", REFERENCE_NK, candidate_NK, LABELS_N).worst
    assert [one.index for one in worst] == [3, 1, 2, 0]
    assert worst[0].candidate is None
    assert (worst[1].label, worst[1].reference, worst[1].candidate, worst[1].largest_difference) == (1, 1, 2, 9)


def test_at_most_twenty_worst_images_are_listed() -> None:
    logits_NK = np.eye(10, dtype=np.float32)[np.arange(50) % 10]
    worst = compare("shifted", logits_NK, np.roll(logits_NK, 1, axis=1), np.arange(50) % 10).worst
    assert len(worst) == 20


def test_divergence_is_that_of_the_probabilities() -> None:
    """p = (3/4, 1/4) against q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2."""
    reference_NK = np.log(np.array([[3, 1]], np.float32))
    parity = compare("flat", reference_NK, np.zeros((1, 2), np.float32), np.array([0]))
    assert parity.divergence == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5), abs=1e-6)


def test_images_without_an_answer_count_as_wrong_and_are_counted() -> None:
    parity = compare("short", REFERENCE_NK, REFERENCE_NK[:3], LABELS_N)
    assert (parity.answered, parity.images, parity.not_finite) == (3, 4, 0)
    short = compare("short", REFERENCE_NK, REFERENCE_NK[:1], LABELS_N)
    assert (short.candidate_correct, short.lost, short.agreeing) == (1, 1, 1)
    assert not parity.same_answers
    assert compare("long", REFERENCE_NK, np.concatenate([REFERENCE_NK] * 2), LABELS_N).answered == 8


def test_an_incomplete_reference_and_another_number_of_classes_are_refused() -> None:
    with pytest.raises(DataError, match="the reference gave 3 answers, expected 4 with finite logits"):
        compare("other", REFERENCE_NK[:3], REFERENCE_NK, LABELS_N)
    with pytest.raises(DataError, match="other: 2 logits per image, expected 3"):
        compare("other", REFERENCE_NK, REFERENCE_NK[:, :2], LABELS_N)


def test_a_negative_label_is_refused() -> None:
    split = Split(np.zeros((2, 4, 4, 1), np.uint8), np.array([0, -1]))
    with pytest.raises(DataError, match="pets: label -1 found, expected 0 to 1"):
        check_labels(("cat", "dog"), split, ("cat", "dog"), name="pets")
