"""rtk eval on folders of every layout, on the real data sets, and its errors; each through the command line."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes.own_data import CLASSES, picture, png
from numpy.typing import NDArray
from PIL import Image
from rtk.bench.evaluation.calibration import calibration_of, fit_temperature
from rtk.bench.evaluation.file import read_comparison, read_evaluation
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.options import DataOptions
from rtk.core.zoo import zoo_card, zoo_file
from rtk.workflow.eval_request import EvalRequest, Wanted
from rtk.workflow.evaluation import compare_models, evaluated

CommandLine = Callable[..., tuple[str, str]]
ZOO = "resnet20v1-cifar10"
ANIMALS = ("bird", "cat", "dog")
"""Three of its ten classes."""
COUNT = 5


def class_folders(root: Path, classes: tuple[str, ...] = ANIMALS, *, count: int = COUNT, grey: bool = False) -> Path:
    """<class>/<number>.png below `root`, pictures of other sizes than the model's."""
    random = np.random.default_rng(5)
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = picture(label, random)
            pixels = pixels.mean(axis=2).astype(np.uint8) if grey else pixels
            (root / name / f"{number}.png").write_bytes(png(pixels))
    return root


def answers_of_classify(command_line: CommandLine, root: Path, model: str = ZOO) -> dict[str, str]:
    """What rtk classify answers, by path below `root`."""
    printed, _ = command_line("classify", str(root), "--model", model, "--backend", "onnx", "--format", "csv")
    rows = csv.DictReader(printed.splitlines())
    return {str(Path(row["file"]).relative_to(root)): row["label"] for row in rows}


def lines_of(printed: str) -> str:
    """The text on one line."""
    return " ".join(printed.split())


@pytest.mark.parametrize("grey", [False, True])
def test_all_images_of_a_folder_without_splits_count(grey: bool, tmp_path: Path, command_line: CommandLine) -> None:
    root = class_folders(tmp_path / "pets", grey=grey)
    printed, said = command_line(
        "eval", ZOO, "--dataset", str(root), "--report", "out", "--per-image", "images.csv", "--backend", "onnx"
    )
    found = read_evaluation(tmp_path / "out")
    answers = answers_of_classify(command_line, root)
    right = sum(name.split("/")[0] == label for name, label in answers.items())
    assert (found.images, found.correct) == (3 * COUNT, right)
    assert (found.data.name, found.data.split, found.data.layout) == ("pets", "all", "class folders")
    assert len(found.data.fingerprint) == 64
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text().splitlines()))
    assert {row["file"]: row["prediction"] for row in rows} == answers
    assert {one.name: one.support for one in found.classes if one.support} == dict.fromkeys(ANIMALS, COUNT)
    assert next(one.recall for one in found.classes if one.name == "ship") is None
    assert "pets, all images: 15 images" in lines_of(printed)
    assert "no images of airplane, automobile, deer, ..." in lines_of(said)
    assert max(map(len, printed.splitlines()[2:])) <= 80


def test_one_class_alone_is_enough(tmp_path: Path, command_line: CommandLine) -> None:
    root = class_folders(tmp_path / "cats", ("cat", "dog"))
    shutil.rmtree(root / "dog")
    command_line("eval", ZOO, "--dataset", str(root), "--report", "out", "--backend", "onnx")
    assert read_evaluation(tmp_path / "out").images == COUNT


def test_a_test_folder_needs_no_training_folder_beside_it(tmp_path: Path, command_line: CommandLine) -> None:
    class_folders(tmp_path / "pets" / "test", ("cat", "dog"))
    class_folders(tmp_path / "pets" / "val", ("bird",), count=2)
    for options, images in (((), 2 * COUNT), (("--split", "validation"), 2), (("--split", "all"), 2 * COUNT + 2)):
        command_line("eval", ZOO, "--dataset", "pets", *options, "--report", "out", "--backend", "onnx")
        found = read_evaluation(tmp_path / "out")
        assert found.images == images
        assert found.data.split == (options[-1] if options else "test")


def test_split_folders_within_a_folder_of_their_name_are_read(tmp_path: Path, command_line: CommandLine) -> None:
    # as some data sets for Keras are packed: seg_train/seg_train/<class>, seg_test/seg_test/<class>, seg_pred/*
    class_folders(tmp_path / "scenes" / "seg_train" / "seg_train", ("cat", "dog"), count=2)
    class_folders(tmp_path / "scenes" / "seg_test" / "seg_test", ("cat", "dog"), count=3)
    class_folders(tmp_path / "scenes" / "seg_pred", ("seg_pred",), count=1)
    command_line("eval", ZOO, "--dataset", "scenes", "--report", "out", "--backend", "onnx")
    found = read_evaluation(tmp_path / "out")
    assert (found.images, found.data.split) == (6, "test")


def test_a_table_of_labels_is_enough(tmp_path: Path, command_line: CommandLine) -> None:
    root = class_folders(tmp_path / "pets")
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    (root / "labels.csv").write_text("file,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    command_line("eval", ZOO, "--dataset", "pets", "--report", "out", "--backend", "onnx")
    assert read_evaluation(tmp_path / "out").images == 3 * COUNT


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Cat", "did you mean 'cat'?"),
        ("automobiles", "did you mean 'automobile'?"),
        ("fox", "leave out their images, or name their folders as the model does"),
    ],
)
def test_an_unknown_class_is_one_clear_error(name: str, advice: str, tmp_path: Path, command_line: CommandLine) -> None:
    class_folders(tmp_path / "pets", ("dog", name))
    _, said = command_line("eval", ZOO, "--dataset", "pets", "--backend", "onnx", code=1)
    assert f"pets: class {name!r} is not a class of the model; expected airplane, automobile, bird" in said
    assert said.strip().endswith(advice)
    assert len(said.strip().splitlines()) == 1


def test_a_data_set_of_other_classes_is_one_clear_error(command_line: CommandLine) -> None:
    _, said = command_line("eval", ZOO, "--dataset", "shapes", "--backend", "onnx", code=1)
    assert said.startswith("rtk: shapes: 10 classes are not classes of the model, the first: ")
    assert said.endswith("; name images of these classes\n")


@pytest.mark.torch
def test_a_graph_on_torch_says_that_its_checkpoint_runs(tmp_path: Path, command_line: CommandLine) -> None:
    class_folders(tmp_path / "pets")
    shutil.copy(zoo_file(ZOO, ".onnx"), tmp_path / "graph.onnx")
    _, said = command_line("eval", "graph.onnx", "--dataset", "pets", "--backend", "torch", "--report", "out")
    assert "graph.onnx: torch runs its checkpoint instead" in lines_of(said)
    assert read_evaluation(tmp_path / "out").file.path.endswith(f"{ZOO}.pt")


def test_the_report_is_a_page_and_json_without_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    class_folders(tmp_path / "pets")
    for words, title in (((ZOO,), f"{ZOO}, fp32"), ((ZOO, str(zoo_file(ZOO, ".onnx"))), f"A: {ZOO}, fp32")):
        printed, _ = command_line("eval", *words, "--dataset", "pets", "--backend", "onnx", "--report", "out")
        assert printed.splitlines()[-1] == "out/eval.html"
        page = (tmp_path / "out" / "eval.html").read_text()
        assert title in page
        assert "<script" not in page
        assert str(tmp_path) not in page + (tmp_path / "out" / "eval.json").read_text()


def test_errors_are_one_line(tmp_path: Path, command_line: CommandLine) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    class_folders(tmp_path / "pets")
    for words, code, expected in (
        (("none.pt",), 1, "none.pt: no such checkpoint"),
        ((ZOO, "--dataset", "/none/at/all"), 1, "/none/at/all: no such folder or archive"),
        ((ZOO, "--dataset", "imagnet"), 2, "data set 'imagnet' is unknown"),
        ((ZOO, "--dataset", "empty"), 1, "empty: holds no images"),
        ((ZOO, "--dataset", "flat"), 1, "1 image without a class, the first: a.png"),
        ((ZOO, "--dataset", "pets", "--split", "train"), 1, "pets: has no train split; it has no splits; leave out"),
        ((ZOO, "--split", "dev"), 2, "split 'dev' is unknown"),
        ((ZOO, "--max-unreadable", "0.5"), 2, "--max-unreadable goes with --dataset DIR"),
        ((ZOO, "--per-image", "out.txt"), 2, "out.txt: unknown suffix; expected .csv or .parquet"),
        ((ZOO, "--backend", "tensorflow"), 2, "backend 'tensorflow' is unknown"),
        ((ZOO, "resnet20v1-fashion-mnist"), 1, "other classes (10 and 10 classes; only resnet20v1-cifar10 has 'air"),
    ):
        printed, said = command_line("eval", *words, code=code)
        assert printed == ""
        assert expected in said
        assert len([line for line in said.splitlines() if expected in line and line.startswith("rtk: ")]) == 1


def test_unreadable_images_are_left_out_with_a_line(tmp_path: Path, command_line: CommandLine) -> None:
    root = class_folders(tmp_path / "pets")
    (root / "cat" / "3.png").write_bytes(b"no image")
    _, said = command_line("eval", ZOO, "--dataset", "pets", "--backend", "onnx", code=1)
    assert "1 of 15 images cannot be read" in lines_of(said)
    assert "or accept them: --max-unreadable 0.07" in lines_of(said)
    options = ("--max-unreadable", "0.07", "--report", "out", "--backend", "onnx")
    printed, said = command_line("eval", ZOO, "--dataset", "pets", *options)
    found = read_evaluation(tmp_path / "out")
    assert (found.images, found.data.images, found.data.unreadable) == (14, 14, 1)
    assert "left out" in lines_of(said)
    assert "14 images (class folders; fingerprint" in lines_of(printed)
    assert "1 unreadable, left out" in lines_of(printed)


@pytest.mark.torch
def test_the_folder_of_the_training_is_split_as_there(
    tmp_path: Path, save_untrained: Callable[..., Path], command_line: CommandLine
) -> None:
    from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint

    root = class_folders(tmp_path / "pets", CLASSES, count=10)
    dataset = open_dataset(str(root), options=DataOptions(split_seed=3, test_share=0.3))
    loaded = load_checkpoint(save_untrained(tmp_path / "pets.pt"))
    last = [name for name, value in loaded.weights.items() if value.shape[:1] == (10,)]
    weights = {name: value[:3] if name in last else value for name, value in loaded.weights.items()}
    card = replace(loaded.card, dataset="pets", classes=CLASSES, data=dataset.record, checkpoint_sha256="", score=None)
    save_checkpoint(tmp_path / "pets.pt", card, weights)
    assert dataset.details is not None
    drawn = [name for name, _ in dataset.details.files("test")]
    for requested in ((), ("--dataset", "pets")):
        command_line("eval", "pets.pt", *requested, "--backend", "torch", "--per-image", "a.csv", "--report", "out")
        rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
        assert [row["file"] for row in rows] == drawn
        assert len(drawn) == 9
        assert read_evaluation(tmp_path / "out").data.split == "test"
    # The same images elsewhere are the same data set; another image makes it another one.
    shutil.copytree(root, tmp_path / "moved")
    command_line("eval", "pets.pt", "--dataset", "moved", "--backend", "torch", "--report", "out")
    assert read_evaluation(tmp_path / "out").images == 9
    (root / "cat" / "99.png").write_bytes((root / "cat" / "1.png").read_bytes())
    printed, _ = command_line("eval", "pets.pt", "--dataset", "pets", "--backend", "torch", "--report", "out")
    assert read_evaluation(tmp_path / "out").images == 31
    assert "whose images have changed since" in lines_of(printed)


def test_a_model_compared_with_itself_has_no_changed_answer(tmp_path: Path, command_line: CommandLine) -> None:
    class_folders(tmp_path / "pets")
    printed, _ = command_line(
        "eval", ZOO, str(zoo_file(ZOO, ".onnx")), "--dataset", "pets", "--backend", "onnx", "--report", "out"
    )
    assert "no answer changed: B answers all 15 images as A does" in lines_of(printed)
    found = read_comparison(tmp_path / "out")
    assert found.changed_images == 0
    assert found.first.file.sha256 == found.second.file.sha256


@pytest.mark.torch
def test_two_models_of_other_sizes_read_the_same_images_at_their_own(
    tmp_path: Path, save_untrained: Callable[..., Path], command_line: CommandLine
) -> None:
    from rtk.core.card import Input

    class_folders(tmp_path / "pets")
    save_untrained(tmp_path / "small.pt")
    save_untrained(tmp_path / "large.pt", size=Input(48, 40, 1), seed=1)
    printed, _ = command_line(
        "eval", "small.pt", "large.pt", "--dataset", "pets", "--backend", "torch", "--report", "out",
        "--per-image", "both.csv",
    )  # fmt: skip
    found = read_comparison(tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "both.csv").read_text().splitlines()))
    for prefix, model in (("a_", "small.pt"), ("b_", "large.pt")):
        command_line("eval", model, "--dataset", "pets", "--backend", "torch", "--report", "alone")
        alone = read_evaluation(tmp_path / "alone")
        assert sum(row[f"{prefix}right"] == "true" for row in rows) == alone.correct
    pairs = [(row["a_right"] == "true", row["b_right"] == "true") for row in rows]
    assert (found.lost, found.won) == (pairs.count((True, False)), pairs.count((False, True)))
    assert found.changed_images == sum(row["a_prediction"] != row["b_prediction"] for row in rows)
    assert max(map(len, printed.splitlines()[:-1])) <= 80


# The real data sets.

PUBLISHED = {"resnet20v1-cifar10": (9_278, 0.025), "resnet20v1-fashion-mnist": (9_539, 0.016)}
"""Right answers by the cards of the zoo, and the calibration error to three digits."""


def calibrated_error(logits_NK: NDArray[np.float32], labels_N: NDArray[np.int64], fitted_N: NDArray[np.bool_]) -> float:
    """The calibration error of half of the images with the temperature of the other half."""
    temperature = fit_temperature(logits_NK[fitted_N], labels_N[fitted_N])
    judged = logits_NK[~fitted_N], labels_N[~fitted_N]
    after = calibration_of(*judged, temperature=temperature)
    assert after.loss < calibration_of(*judged).loss
    return after.ece


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_models_of_the_zoo_are_as_good_as_their_cards_say(name: str, real_data: Path) -> None:
    from sklearn import metrics

    request = EvalRequest(name, Wanted(data_dir=real_data), backend="onnx")
    done = evaluated(request)
    found, logits_NK, labels_N = done.evaluation, done.answers.logits_NK, done.answers.labels_N
    right, ece = PUBLISHED[name]
    score = zoo_card(name).score
    assert score is not None
    assert found.correct == right == score.correct
    assert found.loss == pytest.approx(score.loss, abs=1e-4)
    assert round(found.calibration.ece, 3) == ece
    # scikit-learn's report of each class
    report = metrics.classification_report(
        labels_N, logits_NK.argmax(axis=1), target_names=found.card.classes, output_dict=True, zero_division=np.nan
    )
    for one in found.classes:
        expected = [report[one.name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert [one.precision, one.recall, one.f1, one.support] == pytest.approx(expected)
    assert found.macro.f1 == pytest.approx(report["macro avg"]["f1-score"])
    # the calibration error again, by sorting images into the bins
    powers_NK = np.exp(logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True))
    confidences_N = (powers_NK / powers_NK.sum(axis=1, keepdims=True)).max(axis=1)
    bins_N = np.digitize(confidences_N, np.linspace(0, 1, 16)[1:-1], right=True)
    right_N = logits_NK.argmax(axis=1) == labels_N
    gaps = [
        abs(right_N[bins_N == k].mean() - confidences_N[bins_N == k].mean()) * (bins_N == k).mean()
        for k in np.unique(bins_N)
    ]
    assert found.calibration.ece == pytest.approx(sum(gaps))
    # a temperature that is fitted on one half calibrates the other half
    errors = [calibrated_error(logits_NK, labels_N, np.arange(len(labels_N)) % 2 == 0)]
    random = np.random.default_rng(0)
    errors += [calibrated_error(logits_NK, labels_N, random.random(len(labels_N)) < 0.5) for _ in range(20)]
    assert errors[0] < 0.01
    assert sum(errors) / len(errors) < 0.01  # halves differ: one of 5,000 images has 0.6 to 1.4 %
    # PyTorch answers the same
    torch = evaluated(replace(request, backend="torch")).evaluation
    assert torch.correct == right
    assert np.abs(np.array(torch.confusion) - np.array(found.confusion)).sum() <= 4
    assert torch.calibration.ece == pytest.approx(found.calibration.ece, abs=1e-4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.torch
def test_a_model_in_int8_is_compared_with_itself_in_fp32(real_data: Path, tmp_path: Path) -> None:
    from rtk.workflow.artifacts import cached_graph

    dataset = open_dataset("cifar10", data_dir=real_data)
    graph = cached_graph(zoo_file(ZOO, ".pt"), precision="int8", dataset=dataset)
    found = compare_models(EvalRequest(ZOO, Wanted(data_dir=real_data), backend="onnx"), str(graph)).comparison
    assert found.first.correct == 9_278
    assert found.second.precision == "int8"
    assert found.second.correct - found.first.correct == found.won - found.lost
    assert 0 < found.changed_images < 300
    assert found.difference.low < found.accuracy_change < found.difference.high
    assert json.dumps(found.second.file.path)
