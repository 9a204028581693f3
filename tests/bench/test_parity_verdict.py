"""The verdict: parity, no parity, or inconclusive because the images are too few; then it says how many it takes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from rtk.bench.parity.compare import Parity, compare
from rtk.bench.parity.paired_interval import (
    Z,
    chance_of_loss,
    images_for,
    images_needed,
    lower_loss,
    pass_rate,
    smallest_resolvable_loss,
    upper_loss,
)
from rtk.bench.parity.verdict import Requirement, Verdict, judge, requirement
from rtk.core.errors import InconclusiveError, ParityError, UnknownNameError, UsageError
from rtk.core.tolerances import PRECISIONS


def parity_of(*, images: int = 10_000, lost: int = 0, won: int = 0) -> Parity:
    """A candidate with the reference's logits except for lost and won images; 90 % of the answers are right."""
    labels_N = np.arange(images) % 10
    answers_N = np.where(np.arange(images) < 0.9 * images, labels_N, (labels_N + 9) % 10)
    classes = np.eye(10, dtype=np.float32)
    reference_NK = classes[answers_N] + 0.95 * classes[(answers_N + 1) % 10]
    swapped_NK = 0.95 * classes[answers_N] + classes[(answers_N + 1) % 10]
    candidate_NK = reference_NK.copy()
    candidate_NK[:lost] = swapped_NK[:lost]
    candidate_NK[images - won :] = swapped_NK[images - won :]
    return compare("candidate", reference_NK, candidate_NK, labels_N)


def outcomes(verdict: Verdict) -> dict[str, str]:
    """The outcomes of the checks that did not pass."""
    return {check.name: check.outcome for check in verdict.checks if check.outcome != "passed"}


# The interval.


def test_ten_thousand_unchanged_images_leave_a_bound_of_four_hundredths_of_a_point() -> None:
    assert smallest_resolvable_loss(10_000) == pytest.approx(0.000384, abs=1e-6)
    assert upper_loss(0, 0, 10_000) == pytest.approx(Z**2 / (10_000 + Z**2), abs=1e-8)


@pytest.mark.parametrize(("lost", "won", "images"), [(12, 2, 50), (1, 0, 44), (40, 30, 10_000), (0, 3, 100)])
def test_at_the_bound_the_score_equals_the_quantile_with_the_error_found_by_search(
    lost: int, won: int, images: int
) -> None:
    """The error under a given loss is found by maximising the likelihood by search, not by a formula."""
    bound = upper_loss(lost, won, images)
    shares = np.linspace(0, (1 - bound) / 2, 400_001)[1:-1]  # of won images; lost ones add the bound
    same = images - lost - won
    likelihood = lost * np.log(shares + bound) + won * np.log(shares) + same * np.log(1 - 2 * shares - bound)
    won_share = shares[likelihood.argmax()] if won else (shares[likelihood.argmax()] if lost else 0.0)
    error = math.sqrt((2 * won_share + bound - bound**2) / images)
    assert (bound - (lost - won) / images) / error == pytest.approx(Z, rel=2e-3)


def test_more_images_and_fewer_changes_tighten_the_bound() -> None:
    assert upper_loss(5, 5, 1_000) > upper_loss(5, 5, 10_000)
    assert upper_loss(50, 50, 10_000) > upper_loss(5, 5, 10_000)
    assert upper_loss(0, 100, 10_000) < 0
    assert upper_loss(0, 0, 0) == 1


def test_the_lower_bound_is_the_upper_bound_of_the_opposite() -> None:
    assert lower_loss(60, 40, 10_000) == -upper_loss(40, 60, 10_000)
    assert lower_loss(60, 40, 10_000) < 0.002 < upper_loss(60, 40, 10_000)
    assert lower_loss(0, 0, 0) == -1


@pytest.mark.parametrize(("lost", "images", "loss"), [(3, 20, 0.009), (4, 60, 0.003), (1, 5, 0.1)])
def test_the_chance_of_a_loss_is_the_sum_over_all_worse_outcomes(lost: int, images: int, loss: float) -> None:
    """Compared with the sum over all numbers of lost and won images, by the multinomial distribution."""
    random_share = chance_of_loss(lost, 0, images, loss=loss)
    b = -lost + (2 * images - lost) * loss
    won_share = (abs(b) - b) / (4 * images)  # the formula of the score interval, with no won image
    total = 0.0
    for won in range(images + 1):
        for more in range(images + 1 - won):
            if more - won >= lost:
                ways = math.comb(images, won) * math.comb(images - won, more)
                same = 1 - 2 * won_share - loss
                total += ways * won_share**won * (won_share + loss) ** more * same ** (images - won - more)
    assert random_share == pytest.approx(total, rel=1e-6)
    assert chance_of_loss(0, 0, images, loss=loss) == 1


def test_the_number_of_images_needed_is_enough_and_not_far_from_too_few() -> None:
    for lost, won, images, margin in ((40, 30, 10_000, 0.002), (3, 3, 500, 0.003), (0, 0, 100, 0.003)):
        needed = images_needed(lost, won, images, margin=margin)
        assert needed is not None
        scale = needed / images
        assert upper_loss(round(scale * lost), round(scale * won), needed) < margin
        scale *= 0.9
        assert upper_loss(round(scale * lost), round(scale * won), round(scale * images)) > margin
    assert images_needed(40, 30, 10_000, margin=0.001) is None, "the measured loss is the margin"
    assert 7 / 10_000 < 0.07 / 100, "and here it is, but for the last bit of a float"
    assert images_needed(7, 0, 10_000, margin=0.07 / 100) is None
    assert images_needed(0, 0, 0, margin=0.001) is None


def test_the_fewest_images_for_a_margin_are_exactly_enough() -> None:
    assert images_for(0.0005) == 7_680
    assert smallest_resolvable_loss(7_680) < 0.0005 < smallest_resolvable_loss(7_679)


@pytest.mark.parametrize(
    ("precision", "won_share"), [("fp32", 0), ("fp16", 1e-4), ("bf16", 1e-3), ("int8", 3e-3), ("int8", 1e-2)]
)
def test_a_true_loss_just_above_the_margin_passes_in_a_twentieth_of_the_cases_at_most(
    precision: str, won_share: float
) -> None:
    margin = PRECISIONS[precision].margin_pp / 100
    lost_share = won_share + margin * 1.01
    assert pass_rate(10_000, lost_share=lost_share, won_share=won_share, margin=margin) <= 0.05


def test_a_correct_int8_candidate_is_seldom_refused() -> None:
    """Of ten thousand answers 45 become wrong and 45 become right: refused in about one case of ten."""
    refused = 1 - pass_rate(10_000, lost_share=0.0045, won_share=0.0045, margin=0.003)
    assert 0.02 < refused < 0.2


@pytest.mark.parametrize("images", [1, 2])
def test_no_margin_of_100_points_is_advised(images: int) -> None:
    parity = compare(
        "c",
        np.eye(2, dtype=np.float32)[[0] * images],
        np.eye(2, dtype=np.float32)[[1] * images],
        np.zeros(images, np.int64),
    )
    text = judge(parity, precision="int8").checks[-1].text
    assert "images cannot show so small a loss" in text or "image cannot show so small a loss" in text
    assert "passes" not in text


# The verdict.


def test_identical_logits_pass_in_every_precision() -> None:
    for precision in ("fp32", "fp16", "bf16", "int8"):
        verdict = judge(parity_of(), precision=precision)
        assert verdict.passed, verdict.to_text()
        verdict.enforce()


def test_a_loss_that_is_not_significant_is_inconclusive() -> None:
    """60 lost, 40 won: a sign test is not significant (p = 0.057), but 0.4 points may be lost."""
    verdict = judge(parity_of(lost=60, won=40), precision="int8")
    assert outcomes(verdict) == {"accuracy kept": "inconclusive"}
    assert (verdict.outcome, verdict.passed) == ("inconclusive", False)
    assert verdict.loss_pp == pytest.approx(0.2)
    with pytest.raises(InconclusiveError) as caught:
        verdict.enforce()
    assert caught.value.exit_code == 5
    assert "8,980 right, the reference 9,000 (60 lost, 40 won): 0.200 points lost, at least 0.004 and " in str(
        caught.value
    )
    assert "two-sided 95 % interval, so one-sided 97.5 %" in str(caught.value)
    assert "10,000 images with so many changed answers are too few; about 39,000 would be enough" in str(caught.value)
    assert str(caught.value).endswith("these can show a loss below 0.41: --require-parity 0.41 passes")
    assert judge(parity_of(lost=60, won=40), precision="int8", required=Requirement(margin_pp=0.41)).passed
    assert "\n" not in str(caught.value)
    assert judge(parity_of(lost=60, won=40), precision="int8", required=Requirement(margin_pp=0.5)).passed


def test_a_loss_above_the_margin_is_no_parity() -> None:
    """120 lost, 40 won: 0.8 points, and at least 0.55 by the interval."""
    verdict = judge(parity_of(lost=120, won=40), precision="int8")
    assert outcomes(verdict)["accuracy kept"] == "failed"
    assert verdict.outcome == "failed"
    with pytest.raises(ParityError) as caught:
        verdict.enforce()
    assert caught.value.exit_code == 4


def test_a_fault_is_no_parity_although_the_images_are_too_few() -> None:
    verdict = judge(replace(parity_of(images=100), not_finite=1), precision="int8")
    assert outcomes(verdict) == {"every image answered once": "failed", "accuracy kept": "inconclusive"}
    with pytest.raises(ParityError, match="^candidate: no parity with the reference in int8: every image answered"):
        verdict.enforce()


def test_too_few_images_for_the_margin_are_inconclusive() -> None:
    check = judge(parity_of(images=1_000), precision="int8").checks[-1]
    assert check.outcome == "inconclusive"
    assert check.text.endswith(
        "1,000 images cannot show so small a loss even if no answer changes; that needs at least 1,277; these can "
        "show a loss below 0.39: --require-parity 0.39 passes"
    )
    assert judge(parity_of(images=1_000), precision="int8", required=Requirement(margin_pp=0.39)).passed
    assert judge(parity_of(images=2_000), precision="int8").passed


def test_one_logit_that_is_not_finite_is_refused_although_the_accuracy_is_kept() -> None:
    verdict = judge(replace(parity_of(), not_finite=1), precision="int8")
    assert outcomes(verdict) == {"every image answered once": "failed"}


def test_one_missing_or_extra_answer_is_refused() -> None:
    for answered in (9_999, 10_001):
        verdict = judge(replace(parity_of(), answered=answered), precision="fp32")
        assert not verdict.passed
        assert verdict.checks[1].text == f"{answered:,} answers to 10,000 images, 0 whose logits are not finite"


def test_logits_scaled_by_1_5_are_refused_in_every_precision_although_no_answer_changes() -> None:
    random = np.random.default_rng(0)
    reference_NK = random.normal(0, 5, (10_000, 10)).astype(np.float32)
    parity = compare("loud", reference_NK, 1.5 * reference_NK, reference_NK.argmax(axis=1))
    assert parity.same_answers
    for precision in ("fp32", "fp16", "bf16", "int8"):
        found = outcomes(judge(parity, precision=precision))
        assert found == {f"within {precision} tolerance": "failed", "no systematic error": "failed"}


@pytest.mark.parametrize(
    ("difference", "rounding", "passes"),
    [(0.0006, 0.0, False), (0.0006, 0.0001, True), (0.0009, 0.0001, False), (0.09, 1.0, True), (0.11, 1.0, False)],
)
def test_fp32_logits_may_be_eight_times_as_far_off_as_the_references_own_rounding(
    difference: float, rounding: float, passes: bool
) -> None:
    """Logits around 100 with a spread of 100; however inexact the reference is, a thousandth of that is the limit."""
    labels_N = np.zeros(10_000, np.int64)
    reference_NK = np.tile(np.float32([200, 0]), (10_000, 1))
    candidate_NK = reference_NK + np.where(np.arange(10_000) == 0, difference, 0)[:, None]
    parity = compare("onnx", reference_NK, candidate_NK, labels_N, rounding=rounding)
    verdict = judge(parity, precision="fp32")
    assert verdict.passed is passes, verdict.to_text()


def test_mlperf_presets_compare_two_accuracies_and_the_text_says_so() -> None:
    """99 % of 9,000 right answers are 8,910; 99.9 % are 8,991."""
    for preset, allowed in (("mlperf-99", 90), ("mlperf-99.9", 9)):
        just = judge(parity_of(lost=allowed), precision="int8", required=requirement(preset)).checks[-1]
        assert just.passed, just.text
        assert "MLPerf's point comparison, which ignores chance" in just.text
        assert not judge(parity_of(lost=allowed + 1), precision="int8", required=requirement(preset)).checks[-1].passed


def test_the_summary_is_one_line_of_80_columns_with_the_counts() -> None:
    verdict = judge(replace(parity_of(), candidate="onnx"), precision="fp32")
    assert verdict.summary() == ("onnx (fp32): parity (9,000 of 10,000 right, reference 9,000; 0 answers changed)")
    changed = judge(replace(parity_of(lost=60, won=40), candidate="openvino int8"), precision="int8")
    assert changed.summary() == ("openvino int8: inconclusive (8,980 of 10,000, reference 9,000; 100 changed)")
    lost = judge(replace(parity_of(lost=220), candidate="openvino int8"), precision="int8")
    assert lost.summary() == ("openvino int8: NO PARITY (8,780 of 10,000 right, reference 9,000; 220 changed)")
    longest = replace(lost, candidate="openvino", precision="bf16", images=50_000, candidate_correct=38_980)
    longest = replace(longest, reference_correct=39_000, changed=50_000)
    assert longest.summary() == "openvino (bf16): NO PARITY (38,980 of 50,000, reference 39,000; 50,000 changed)"
    assert all(len(one.summary()) <= 80 for one in (verdict, changed, lost, longest))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_text_is_80_columns_wide_and_lists_all_checks(precision: str) -> None:
    verdict = judge(replace(parity_of(images=1_000, lost=1), candidate="onnx"), precision=precision)
    lines = verdict.to_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] in (f"onnx ({precision}): NO PARITY", f"onnx ({precision}): inconclusive")
    found = [line.strip() for line in lines[1:] if not line.startswith("     ")]
    names = ["the reference's card", "every image answered once", f"within {precision} tolerance"]
    names += ["no systematic error", "accuracy kept"]
    marks = {"passed": "ok", "inconclusive": "??", "failed": "NO"}
    words = [f"{marks[check.outcome]} {name}: " for check, name in zip(verdict.checks, names, strict=True)]
    assert [line.startswith(start) for line, start in zip(found, words, strict=True)] == [True] * 5
    assert " ".join(" ".join(lines).split()).endswith(verdict.checks[-1].text)


def test_a_requirement_is_points_or_a_preset() -> None:
    assert requirement("0.3") == Requirement(margin_pp=0.3)
    assert requirement("default") == Requirement()
    for wrong in ("mlperf-98", "-1", "nan", "100"):
        with pytest.raises(UsageError, match=f"--require-parity {wrong}"):
            requirement(wrong)


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="precision 'fp8' is unknown"):
        judge(parity_of(), precision="fp8")
