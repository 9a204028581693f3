"""Small errors that move all images alike are told apart from rounding: class by class, and by the slope."""

import numpy as np
import pytest
from rtk.bench.parity.compare import compare
from rtk.bench.parity.systematic import (
    ClassAnswers,
    answers_by_class,
    class_shifts,
    classes_with_loss,
    slope_of,
)
from rtk.bench.parity.verdict import Requirement, judge
from rtk.core.tolerances import PRECISIONS

REFERENCE_NK = np.array([[1, 2], [3, 6], [5, 4]], np.float32)


def test_the_shift_of_a_class_is_the_mean_difference_with_its_sign() -> None:
    candidate_NK = REFERENCE_NK + np.array([[1, -1], [-1, -1], [0, -1]], np.float32)
    assert class_shifts(candidate_NK, REFERENCE_NK) == pytest.approx((0, -1))


def test_the_slope_is_that_of_the_regression_without_the_means_of_the_classes() -> None:
    """NumPy's least squares, class by class, with one common slope and an intercept for each class."""
    random = np.random.default_rng(0)
    reference_NK = random.normal(0, 3, (50, 4)).astype(np.float32)
    candidate_NK = (0.9 * reference_NK + np.arange(4) + random.normal(0, 0.2, (50, 4))).astype(np.float32)
    intercepts = np.tile(np.eye(4), (50, 1))
    design = np.column_stack([reference_NK.ravel(), intercepts])
    (expected, *_), *_ = np.linalg.lstsq(design, candidate_NK.ravel(), rcond=None)
    assert slope_of(candidate_NK, reference_NK) == pytest.approx(expected, rel=1e-6)
    assert slope_of(1.04 * reference_NK + 7, reference_NK) == pytest.approx(1.04, rel=1e-5)
    assert slope_of(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)) == 1


def test_answers_are_counted_by_class() -> None:
    labels_N = np.array([0, 0, 2, 2, 2])
    lost_N, won_N = np.array([1, 0, 1, 1, 0], bool), np.array([0, 0, 0, 0, 1], bool)
    assert answers_by_class(labels_N, lost_N, won_N, classes=3) == (ClassAnswers(0, 2, 1, 0), ClassAnswers(2, 3, 2, 1))
    assert ClassAnswers(2, 3, 2, 1).loss_pp == pytest.approx(100 / 3)


def test_the_worst_class_comes_first() -> None:
    answers = [ClassAnswers(k, 1_000, lost, 10) for k, lost in enumerate((10, 60, 90, 12))]
    assert [one.label for one in classes_with_loss(answers, loss=0.009)] == [2, 1]


@pytest.mark.parametrize(
    ("images", "classes", "loss", "won_share"),
    [
        (1_000, 10, 0.009, 0.004),
        (1_000, 10, 0.0015, 0.0),
        (100, 100, 0.009, 0.004),
        (20, 200, 0.009, 0.0),
        (50, 2, 0.02, 0.05),
    ],
)
def test_classes_whose_true_loss_is_the_limit_are_named_in_a_twentieth_of_the_cases_at_most(
    images: int, classes: int, loss: float, won_share: float
) -> None:
    """Family-wise: all classes of a candidate are at the limit at once, and not one of them may be named."""
    random = np.random.default_rng(0)
    trials = 2_000
    shares = (won_share + loss, won_share, 1 - 2 * won_share - loss)
    counts = random.multinomial(images, shares, (trials, classes))[..., :2]
    chances: dict[tuple[int, int], bool] = {}
    named = 0
    for trial in counts.tolist():
        for lost, won in trial:
            if (lost, won) not in chances:
                family = [
                    ClassAnswers(k, images, lost, won) if k == 0 else ClassAnswers(k, images, 0, 0)
                    for k in range(classes)
                ]
                chances[lost, won] = bool(classes_with_loss(family, loss=loss))
        named += any(chances[lost, won] for lost, won in trial)
    assert named / trials <= 0.05


def test_a_class_that_lost_four_points_is_found_and_named() -> None:
    """58 lost and 16 won of 1,000 images of class 5: 4.2 points, while all other answers stay."""
    labels_N = np.repeat(np.arange(10), 1_000)
    reference_NK = 9 * np.eye(10, dtype=np.float32)[labels_N]
    reference_NK[5_000:5_016] = np.roll(reference_NK[5_000:5_016], 1, axis=1)
    candidate_NK = reference_NK.copy()
    candidate_NK[5_000:5_016] = 9 * np.eye(10, dtype=np.float32)[5]
    candidate_NK[5_100:5_158] = np.roll(candidate_NK[5_100:5_158], 1, axis=1)
    parity = compare("candidate", reference_NK, candidate_NK, labels_N)
    names = tuple(f"class {k}" if k != 5 else "dog" for k in range(10))
    check = next(
        one for one in judge(parity, precision="int8", classes=names).checks if one.name == "no systematic error"
    )
    assert check.outcome == "failed"
    assert "dog lost 4.2 points of recall (58 lost, 16 won of 1,000), which is more than 0.9" in check.text
    wide = judge(parity, precision="int8", required=Requirement(margin_pp=2), classes=names)
    assert "no class is shown to have lost more than 6 points of recall" in wide.checks[3].text


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fault", ["shift", "slope"])
def test_a_shift_or_a_slope_beyond_the_limit_is_refused_and_one_within_it_is_not(precision: str, fault: str) -> None:
    limits = PRECISIONS[precision]
    random = np.random.default_rng(1)
    reference_NK = random.normal(0, 4, (1_000, 10)).astype(np.float32)
    labels_N = reference_NK.argmax(axis=1)
    for share, passes in ((0.9, True), (1.1, False)):
        candidate_NK = reference_NK.copy()
        if fault == "shift":
            candidate_NK[:, 3] += share * limits.class_shift * reference_NK.std()
        else:
            candidate_NK *= 1 - share * limits.slope
        checks = judge(compare("c", reference_NK, candidate_NK, labels_N), precision=precision).checks
        assert next(one.passed for one in checks if one.name == "no systematic error") is passes
