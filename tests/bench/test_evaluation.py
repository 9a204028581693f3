"""The figures of an evaluation, compared with scikit-learn and SciPy or with counts by hand; its files and its text."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rtk.bench.evaluation.answers import Answers, answers_of
from rtk.bench.evaluation.calibration import calibration_of, fit_temperature, scores_of
from rtk.bench.evaluation.compare import check_comparable, comparison_of
from rtk.bench.evaluation.evaluate import evaluation_of
from rtk.bench.evaluation.figures import (
    class_figures,
    confused_pairs,
    confusion_of,
    macro_average,
    top_correct,
    weighted_average,
    wilson_interval,
)
from rtk.bench.evaluation.file import json_of, read_comparison, read_evaluation
from rtk.bench.evaluation.per_image import check_suffix, write_per_image
from rtk.bench.evaluation.result import Comparison, Evaluation, LabelledData
from rtk.bench.evaluation.temperature import bounded_temperature
from rtk.bench.evaluation.text import comparison_text, confusion_text, evaluation_text, model_names
from rtk.bench.measure.contenders import RanFile
from rtk.core.card import Input
from rtk.core.data.datasets import Split
from rtk.core.errors import ArtifactError, BackendError, DataError, UsageError
from rtk.infer.fake import FakeBackend
from sklearn import metrics

RUN_FILE = RanFile("models/tiny.onnx", "0123456789abcdef" * 4)


def drawn(
    images: int, classes: int, *, seed: int = 0, skill: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits that are right more often than not, and labels."""
    random = np.random.default_rng(seed)
    labels_N = random.integers(0, classes, images)
    logits_NK = random.normal(0, 1.5, (images, classes))
    logits_NK[np.arange(images), labels_N] += skill
    return logits_NK.astype(np.float32), labels_N


def split_of(images: int, size: Input, classes: int, *, seed: int = 0) -> Split:
    """Random images; most labels are what FakeBackend answers."""
    random = np.random.default_rng(seed)
    images_NHWC = random.integers(0, 256, (images, *size.shape), dtype=np.uint8)
    labels_N = images_NHWC.reshape(images, -1).sum(axis=1, dtype=np.int64) % classes
    labels_N[::4] = (labels_N[::4] + 1) % classes
    return Split(images_NHWC, labels_N)


def evaluated(
    *, classes: int = 6, images: int = 60, names: tuple[str, ...] = (), temperature: float = 1.0
) -> tuple[Evaluation, Answers, Split]:
    """The evaluation of a fake backend, three quarters of whose answers are right."""
    backend = FakeBackend(size=Input(5, 4, 3), classes=classes)
    backend.card = replace(backend.card, temperature=temperature)
    if names:
        backend.card = replace(backend.card, classes=names)
    split = split_of(images, backend.card.input, classes)
    files = tuple(f"class/{k}.png" for k in range(images))
    answers = answers_of(backend, split, names=files, batch=7)
    data = LabelledData("pets", "test", images)
    return evaluation_of(backend, answers, split, file=RUN_FILE, data=data), answers, split


# Figures.


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, Table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_the_accuracy_is_wilsons(right: int, images: int, low: float, high: float) -> None:
    found = wilson_interval(right, images)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    other = wilson_interval(images - right, images)
    assert (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_of_each_class_are_those_of_scikit_learn(seed: int) -> None:
    logits_NK, labels_N = drawn(120, 8, seed=seed, skill=1.0)
    logits_NK[:, 2] = -50  # never predicted
    labels_N[labels_N == 5] = 4  # no images
    labels_N[labels_N == 7] = 4
    logits_NK[:, 7] = -60  # neither
    predictions_N = logits_NK.argmax(axis=1)
    confusion_KK = confusion_of(labels_N, predictions_N, 8)
    assert confusion_KK.tolist() == metrics.confusion_matrix(labels_N, predictions_N, labels=range(8)).tolist()
    classes = class_figures(confusion_KK, "abcdefgh")
    options = {"labels": range(8), "zero_division": np.nan}
    expected = metrics.precision_recall_fscore_support(labels_N, predictions_N, **options)
    found = [[getattr(one, name) for one in classes] for name in ("precision", "recall", "f1", "support")]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose([math.nan if one is None else one for one in ours], theirs)
    assert classes[2].precision is None
    assert classes[5].recall is None
    assert classes[7].f1 is None
    for average, name in ((macro_average(classes), "macro"), (weighted_average(classes), "weighted")):
        theirs = metrics.precision_recall_fscore_support(labels_N, predictions_N, average=name, **options)[:3]
        np.testing.assert_allclose([average.precision, average.recall, average.f1], theirs)


def test_top_five_and_the_loss_are_those_of_scikit_learn() -> None:
    logits_NK, labels_N = drawn(200, 9)
    expected = metrics.top_k_accuracy_score(labels_N, logits_NK, k=5, normalize=False, labels=range(9))
    assert top_correct(logits_NK, labels_N) == expected
    powers_NK = np.exp(logits_NK.astype(np.float64))
    loss = metrics.log_loss(labels_N, powers_NK / powers_NK.sum(axis=1, keepdims=True), labels=range(9))
    assert calibration_of(logits_NK, labels_N).loss == pytest.approx(loss)


def test_of_equal_logits_the_first_class_comes_first() -> None:
    logits_NK = np.zeros((2, 7), np.float32)
    assert top_correct(logits_NK, np.array([4, 5])) == 1


def test_the_most_confused_pairs_come_first_and_right_answers_are_none() -> None:
    confusion_KK = np.array([[90, 3, 0], [7, 80, 1], [0, 0, 5]])
    pairs = [(pair.label, pair.prediction, pair.images) for pair in confused_pairs(confusion_KK)]
    assert pairs == [(1, 0, 7), (0, 1, 3), (1, 2, 1)]


def test_a_model_that_is_always_right_has_no_confused_pairs() -> None:
    assert confused_pairs(np.diag([3, 4])) == ()


# Calibration.


def test_the_calibration_error_is_that_of_a_loop_over_images() -> None:
    logits_NK, labels_N = drawn(500, 10, skill=3.0)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits_NK.astype(np.float64), labels_N, strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        confidence = max(powers) / sum(powers)
        bins[math.ceil(confidence * 15) - 1].append((confidence, powers.index(max(powers)) == label))
    found = calibration_of(logits_NK, labels_N)
    assert [one.images for one in found.bins] == list(map(len, bins))
    assert [one.right for one in found.bins] == [sum(right for _, right in some) for some in bins]
    gaps = [abs(sum(right for _, right in some) - sum(share for share, _ in some)) for some in bins]
    assert found.ece == pytest.approx(sum(gaps) / 500)
    assert found.bins[0].confidence is None
    assert found.bins[0].accuracy is None
    assert (found.bins[14].low, found.bins[14].high) == (14 / 15, 1.0)


def test_a_certain_answer_belongs_to_the_last_bin() -> None:
    found = calibration_of(np.array([[1000.0, 0.0]], np.float32), np.array([1]))
    assert found.bins[-1].images == 1
    assert found.ece == 1
    assert found.loss == 1000


@pytest.mark.parametrize(("scale", "skill"), [(1.0, 2.0), (4.0, 2.0), (0.2, 3.0)])
def test_the_fitted_temperature_has_the_least_loss(scale: float, skill: float) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    logits_NK, labels_N = drawn(600, 5, skill=skill)
    logits_NK *= scale
    found = fit_temperature(logits_NK, labels_N)

    def loss(temperature: float) -> float:
        scaled_NK = logits_NK.astype(np.float64) / temperature
        return metrics.log_loss(labels_N, np.exp(scaled_NK) / np.exp(scaled_NK).sum(axis=1, keepdims=True))

    best = optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-7})
    assert found == pytest.approx(best.x, rel=1e-4)
    assert calibration_of(logits_NK, labels_N, temperature=found).loss == pytest.approx(best.fun)


def test_a_temperature_changes_probabilities_and_no_prediction() -> None:
    logits_NK, labels_N = drawn(50, 4)
    one, other = scores_of(logits_NK, labels_N), scores_of(logits_NK, labels_N, temperature=3.0)
    assert one.predictions_N.tolist() == other.predictions_N.tolist()
    assert (other.confidences_N < one.confidences_N).all()


def test_where_everything_is_right_or_wrong_the_temperature_is_an_end_of_its_range() -> None:
    logits_NK = np.array([[5, 0], [0, 5]], np.float32)
    assert fit_temperature(logits_NK, np.array([0, 1])) == 0.05
    assert fit_temperature(logits_NK, np.array([1, 0])) == 20
    with pytest.raises(DataError, match="no images to fit a temperature on"):
        fit_temperature(logits_NK[:0], np.array([], np.int64))


# Answers.


def test_batches_lose_no_image() -> None:
    result, answers, split = evaluated(images=61)
    assert result.images == len(answers.logits_NK) == 61
    assert result.correct == 61 - 16  # every fourth label, from the first on, is another one
    assert sum(map(sum, result.confusion)) == 61
    assert split.labels_N is answers.labels_N


def test_logits_that_are_not_finite_are_an_error_with_the_first_image() -> None:
    class Faulty(FakeBackend):
        def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
            logits_NK = super()._run(images_NHWC)
            logits_NK[-1, 2] = np.nan
            return logits_NK

    split = split_of(8, Input(32, 32, 3), 10)
    with pytest.raises(BackendError, match="2 of 8 images have logits that are not finite, the first: d.png"):
        answers_of(Faulty(), split, names=[f"{letter}.png" for letter in "abcdefgh"], batch=4)
    with pytest.raises(DataError, match="no images to evaluate"):
        answers_of(FakeBackend(), split.head(0))


# Two models.


def altered(answers: Answers) -> Answers:
    """Other answers to three images: the first is won, the second lost, and the fifth wrong in another way."""
    logits_NK = answers.logits_NK.copy()
    for image, prediction in ((0, answers.labels_N[0]), (1, (answers.labels_N[1] + 2) % 6)):
        logits_NK[image] = 9 * np.eye(6)[prediction]
    logits_NK[4] = 9 * np.eye(6)[(answers.labels_N[4] + 3) % 6]
    return replace(answers, logits_NK=logits_NK)


def compared(*, same: bool = False) -> Comparison:
    """The fake backend and another one."""
    first, answers, split = evaluated()
    others = answers if same else altered(answers)
    backend = FakeBackend(size=Input(5, 4, 3), classes=6, name="other")
    second = evaluation_of(backend, others, split, file=RUN_FILE, data=first.data)
    return comparison_of(first, answers, second, others, split)


def test_lost_and_won_images_are_counted_and_listed() -> None:
    found = compared()
    assert (found.lost, found.won, found.both_wrong, found.both_wrong_changed) == (1, 1, 14, 1)
    assert found.both_right == found.first.correct - 1
    assert [(one.index, one.outcome) for one in found.changed] == [(1, "lost"), (0, "won"), (4, "both wrong")]
    assert found.changed[0].name == "class/1.png"
    assert all(one.picture for one in found.changed)
    assert found.accuracy_change == 0
    assert found.difference.low == pytest.approx(-found.difference.high)
    assert sum(one.lost for one in found.classes) == sum(one.won for one in found.classes) == 1
    assert [one.first_right for one in found.classes] == [one.right for one in found.first.classes]
    assert [one.second_right for one in found.classes] == [one.right for one in found.second.classes]


def test_two_equal_models_differ_in_nothing() -> None:
    found = compared(same=True)
    assert found.changed_images == 0
    assert found.changed == ()
    text = comparison_text(found)
    assert text.endswith("no answer changed: B answers all 60 images as A does")
    assert "Classes" not in text


def test_models_of_other_classes_are_not_compared() -> None:
    names = ("old.pt", "new.pt")
    with pytest.raises(DataError, match="only old.pt has 'cat', only new.pt has 'fox'"):
        check_comparable(("cat", "dog"), ("dog", "fox"), names=names)
    with pytest.raises(DataError, match="new.pt: has the classes of old.pt in another order"):
        check_comparable(("cat", "dog"), ("dog", "cat"), names=names)


def test_models_that_read_other_images_are_not_compared() -> None:
    first, answers, split = evaluated()
    others = replace(answers, names=[*answers.names[:-1], "another.png"])
    with pytest.raises(DataError, match="read other images of pets"):
        comparison_of(first, answers, first, others, split)


# Files.


def test_the_json_is_read_back_as_the_same_evaluation(tmp_path: Path) -> None:
    result, _, _ = evaluated(temperature=1.5)
    (tmp_path / "eval.json").write_text(json_of(result))
    assert read_evaluation(tmp_path) == result
    content = json.loads((tmp_path / "eval.json").read_text())
    assert content["schema"] == "rtk-eval-1"
    assert content["accuracy"] == result.accuracy
    assert content["file"]["sha256"] == RUN_FILE.sha256
    assert content["calibration"]["temperature"] == 1.5
    assert content["uncalibrated"]["temperature"] == 1
    assert content["loss"] == content["uncalibrated"]["loss"]


def test_undefined_figures_are_null(tmp_path: Path) -> None:
    result, answers, split = evaluated()
    only = split.take(np.flatnonzero(split.labels_N == 3))
    some = replace(answers, logits_NK=np.tile(np.eye(6, dtype=np.float32)[2], (len(only), 1)), labels_N=only.labels_N)
    backend = FakeBackend(size=Input(5, 4, 3), classes=6)
    result = evaluation_of(backend, some, only, file=RUN_FILE, data=result.data)
    fields = json.loads(json_of(result))["classes"][0]
    assert (fields["precision"], fields["recall"], fields["f1"]) == (None, None, None)
    table = evaluation_text(result).split("Classes\n\n")[1].split("\n\n")[0]
    lines = {line.split()[1]: line.split()[2:] for line in table.splitlines() if line.startswith("class ")}
    assert lines["0"] == ["-", "-", "-", "0"]
    assert lines["2"] == ["0.00%", "-", "0.00%", "0"]
    assert "-: undefined" in evaluation_text(result)


def test_the_json_of_a_comparison_is_read_back(tmp_path: Path) -> None:
    found = compared()
    (tmp_path / "eval.json").write_text(json_of(found))
    assert read_comparison(tmp_path / "eval.json") == found
    assert json.loads(json_of(found))["changed"][0]["outcome"] == "lost"
    with pytest.raises(ArtifactError, match="schema 'rtk-eval-compare-1', expected 'rtk-eval-1'"):
        read_evaluation(tmp_path)


def test_a_file_that_is_no_evaluation_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such evaluation; write one: rtk eval MODEL --report FOLDER"):
        read_evaluation(tmp_path)
    (tmp_path / "eval.json").write_text("{")
    with pytest.raises(ArtifactError, match="not a result of rtk eval"):
        read_evaluation(tmp_path)
    (tmp_path / "eval.json").write_text('{"schema": "rtk-eval-1"}')
    with pytest.raises(ArtifactError, match="an incomplete evaluation"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_there_is_one_row_for_each_image(suffix: str, tmp_path: Path) -> None:
    _, answers, _ = evaluated()
    path, classes = tmp_path / f"images{suffix}", ("a", "b", "=c", "d", "e", "f")
    write_per_image(path, classes, {"": (answers, 1.0)})
    scores = scores_of(answers.logits_NK, answers.labels_N)
    if suffix == ".csv":
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        assert rows[0]["right"] == "false"
        assert rows[1]["right"] == "true"
        assert {row["label"] for row in rows} == {"a", "b", "'=c", "d", "e", "f"}
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        rows = parquet.read_table(path).to_pylist()
        assert [row["right"] for row in rows[:2]] == [False, True]
    assert len(rows) == 60
    assert [int(row["index"]) for row in rows] == list(range(60))
    assert rows[7]["file"] == "class/7.png"
    np.testing.assert_allclose([float(row["confidence"]) for row in rows], scores.confidences_N, rtol=1e-5)
    np.testing.assert_allclose(
        [float(row["label_probability"]) for row in rows], scores.label_probabilities_N, rtol=1e-5
    )
    assert [int(row["label_rank"]) == 1 for row in rows] == (scores.predictions_N == answers.labels_N).tolist()


def test_two_models_have_columns_each(tmp_path: Path) -> None:
    _, answers, _ = evaluated()
    path = tmp_path / "images.csv"
    write_per_image(path, tuple("abcdef"), {"a_": (answers, 1.0), "b_": (altered(answers), 1.0)})
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert [(row["a_right"], row["b_right"]) for row in rows[:3]] == [
        ("false", "true"),
        ("true", "false"),
        ("true", "true"),
    ]


def test_another_suffix_is_refused() -> None:
    with pytest.raises(UsageError, match=r"answers.txt: unknown suffix; expected .csv or .parquet"):
        check_suffix(Path("answers.txt"))


# Text.


def widest(text: str) -> int:
    """The columns of the widest line."""
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize("classes", [2, 6, 20, 21, 150])
def test_the_text_fits_80_columns_with_long_names(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = tuple(f"a rather long name of a class, number {k}" for k in range(classes))
    result, answers, split = evaluated(classes=classes, images=600, names=names, temperature=2.0)
    answers = replace(answers, names=[f"a/very/long/path/of/a/folder/of/images/{k}.png" for k in range(600)])
    backend = FakeBackend(size=Input(5, 4, 3), classes=classes)
    backend.card = result.card
    result = evaluation_of(backend, answers, split, file=RUN_FILE, data=result.data)
    assert widest(evaluation_text(result)) <= 80
    other = replace(answers, logits_NK=np.roll(answers.logits_NK, 1, axis=1))
    second = evaluation_of(backend, other, split, file=RUN_FILE, data=result.data)
    assert widest(comparison_text(comparison_of(result, answers, second, other, split))) <= 80
    assert bool(confusion_text(result)) == (classes <= 20)


def test_a_matrix_that_is_too_wide_for_counts_has_per_cent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result, _, _ = evaluated(classes=20, images=60)
    one = replace(result.classes[0], support=2000)
    matrix = tuple(tuple(1999 if k == j else 1 if j == k + 1 else 0 for j in range(20)) for k in range(20))
    wide = replace(result, confusion=matrix, classes=(one,) * 20)
    lines = confusion_text(wide).splitlines()
    assert lines[1].split()[-20:] == ["100", "0", *["."] * 18]
    assert lines[-1].startswith("in % of the images of each label")


def test_the_text_says_what_was_measured_on_what() -> None:
    result, _, _ = evaluated(temperature=2.0)
    text = " ".join(evaluation_text(result).split())
    assert (
        "75.00% (45 of 60), 95% interval 62.77% to 84.22%" in text
    )  # scipy.stats.binomtest(45, 60).proportion_ci(method="wilson")
    assert "models/tiny.onnx (sha256 0123456789ab)" in text
    assert "pets, test split: 60 images" in text
    assert "with temperature 2. Without it: ECE" in text


def test_a_temperature_of_images_of_one_class_is_refused() -> None:
    logits_NK = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    with pytest.raises(DataError, match="^d: all 20 images have one label; expected images of several classes$"):
        bounded_temperature(logits_NK, np.ones(20, np.int64), name="d")


def test_two_models_of_one_name_are_told_apart_as_the_user_named_them() -> None:
    both = compared(same=True)
    one = replace(both.first, given="t/a/best.pt")
    both = replace(both, first=one, second=replace(one, given="t/v.pt"))
    name = both.first.card.name
    assert model_names(both) == (f"{name}, fp32 (t/a/best.pt)", f"{name}, fp32 (t/v.pt)")
    assert "(t/a/best.pt): " in " ".join(comparison_text(both).split())
    assert re.search(r"^model +t/a/best.pt$", evaluation_text(both.first), re.MULTILINE)
