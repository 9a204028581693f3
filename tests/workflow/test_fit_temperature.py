"""A temperature is fitted on images that the training held out, and reaches every file of the model."""

import csv
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.engine_files import INFO, PLAN
from fakes.log import logged
from fakes.noisy_folders import noisy_folders
from fakes.train_runs import assert_equal, assert_same_runs, tiny
from rtk.bench.evaluation.answers import answers_of
from rtk.bench.evaluation.calibration import scores_of
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.artifacts.engine import json_path, read_engine_info, read_plan, write_engine
from rtk.core.artifacts.graph import load_graph, sha256_without_card
from rtk.core.artifacts.parity_cache import parity_is_known, remember_parity
from rtk.core.card import ModelCard, TemperatureFit
from rtk.core.data.images import model_image
from rtk.core.errors import OutputError, UsageError
from rtk.core.files import locked, sha256_of
from rtk.core.zoo import zoo_file
from rtk.infer.backend import BackendOptions
from rtk.infer.classify import softmax
from rtk.infer.open_backend import open_backend
from rtk.train.run import resume, train
from rtk.train.stop_signals import Stopped
from rtk.workflow.artifacts import export_graph
from rtk.workflow.eval_request import EvalRequest
from rtk.workflow.fit_temperature import FitConfig, Fitted, fit_temperature
from rtk.workflow.held_out import held_out_of
from rtk.workflow.models import find_model, find_reference
from rtk.workflow.rewrite_card import Temperature, target_of, write_temperature

CPU = BackendOptions(device="cpu")
HELD_OUT = 40
FIT = TemperatureFit("colours", "holdout", 40, 0.1, 1.0, 0.9, 0.2, 0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that held out a third of 120 images, with its graph; tests use copies of it."""
    root = tmp_path_factory.mktemp("noisy")
    folders = noisy_folders(root / "colours", train=120, test=60)
    run = train(tiny(folders, root / "run", holdout=HELD_OUT)).run_dir
    export_graph(load_checkpoint(run / "best.pt"), run / "colours.onnx")
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run folder."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def fit(path: Path, *, out: Path | None = None) -> Fitted:
    """Fit on torch or onnx on the CPU."""
    backend = {".pt": "torch", ".onnx": "onnx"}[path.suffix]
    return fit_temperature(FitConfig(EvalRequest(str(path), backend=backend, device="cpu"), out=out))


def card_of(path: Path) -> ModelCard:
    return find_model(str(path)).card


def pixels_in(run: Path, split: str, card: ModelCard) -> set[bytes]:
    """The images that the run listed for a split, as the model reads them."""
    assert card.data is not None
    with (run / "data" / f"{split}.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    return {model_image(Path(card.data.path) / name, card.input).tobytes() for name in names}


def test_the_images_are_exactly_those_that_the_training_held_out(run: Path) -> None:
    card = card_of(run / "best.pt")
    held_out = held_out_of(card)
    found = {image_HWC.tobytes() for image_HWC in held_out.images.images_NHWC}
    assert len(found) == HELD_OUT
    assert found == pixels_in(run, "holdout", card)
    assert not found & pixels_in(run, "train", card)
    assert not found & pixels_in(run, "test", card)
    assert (held_out.split, held_out.chose_epoch) == ("holdout", True)


def test_the_temperature_is_the_one_that_gradient_descent_finds(run: Path) -> None:
    held_out = held_out_of(card_of(run / "best.pt")).images
    with open_backend("torch", run / "best.pt", CPU) as backend:
        answers = answers_of(backend, held_out, batch=16)
    logits_NK, labels_N = torch.from_numpy(answers.logits_NK).double(), torch.from_numpy(answers.labels_N)
    temperature = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([temperature], lr=0.1, max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits_NK / temperature, labels_N)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[arg-type] # torch's stubs expect a float
    fitted = fit(run / "best.pt")
    assert fitted.temperature == pytest.approx(temperature.item(), rel=1e-4)
    assert fitted.fit.loss_after == pytest.approx(loss().item(), abs=1e-6)
    assert fitted.fit.loss_after < fitted.fit.loss_before
    assert fitted.fit.images == HELD_OUT


def test_a_checkpoint_keeps_everything_but_the_temperature(run: Path) -> None:
    for name in ("best.pt", "last.pt"):
        before = load_checkpoint(run / name)
        fitted = fit(run / name)
        after = load_checkpoint(run / name)
        assert_equal(after.weights, before.weights)
        assert (after.training is None) == (name == "best.pt")
        if before.training is not None:
            assert_equal(after.training, before.training)
        assert after.card == replace(before.card, temperature=fitted.temperature, temperature_fit=fitted.fit)
        assert after.card.checkpoint_sha256 == before.card.checkpoint_sha256 != sha256_of(run / name)
        again = fit(run / name)  # fits the same logits again, not those divided by the first temperature
        assert again.temperature == fitted.temperature
        assert load_checkpoint(run / name).card == after.card


def test_a_run_whose_last_checkpoint_got_a_temperature_resumes_as_if_it_had_none(
    class_folders: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch   1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train(tiny(class_folders, tmp_path / "whole", epochs=2))
    with pytest.raises(Stopped):
        logged(stop, train, tiny(class_folders, tmp_path / "run", epochs=2))
    found = find_model(str(tmp_path / "run" / "last.pt"))
    write_temperature(found, found.given, Temperature(1.5, FIT))
    assert card_of(found.given).temperature == 1.5
    resumed = resume(tmp_path / "run")
    assert_same_runs(whole.run_dir, resumed.run_dir)
    assert card_of(found.given).temperature == 1  # it was fitted to other weights


def test_exports_beside_a_checkpoint_get_its_temperature_and_still_find_it(run: Path) -> None:
    graph, engine = run / "colours.onnx", run / "colours.engine"
    write_engine(engine, PLAN, replace(INFO, card=card_of(graph), graph_sha256=sha256_of(graph)))
    remember_parity(graph, "openvino")
    before, accuracy_sha256 = card_of(graph), sha256_without_card(load_graph(graph)[0])
    fitted = fit(run / "best.pt")
    assert fitted.written == (run / "best.pt", graph, engine)
    for path in (graph, engine):
        assert card_of(path) == replace(before, temperature=fitted.temperature, temperature_fit=fitted.fit)
        assert find_reference(find_model(str(path))) == run / "best.pt"
    assert sha256_without_card(load_graph(graph)[0]) == accuracy_sha256
    assert parity_is_known(graph, "openvino")
    info = read_engine_info(engine)
    assert read_plan(engine, info) == PLAN
    assert info.graph_sha256 == sha256_of(graph)
    exported = export_graph(load_checkpoint(run / "best.pt"), run / "again.onnx").path
    assert card_of(exported).checkpoint_sha256 == before.checkpoint_sha256
    assert card_of(exported).temperature == fitted.temperature


def test_every_backend_shows_the_probabilities_of_the_temperature(run: Path) -> None:
    import rtk

    fitted = fit(run / "best.pt")
    images_NHWC = held_out_of(card_of(run / "best.pt")).images.images_NHWC[:8]
    for name, backend in (("best.pt", "torch"), ("colours.onnx", "onnx"), ("colours.onnx", "openvino")):
        with rtk.load(run / name, backend=backend, device="cpu") as model:
            expected_NK = softmax(model.logits(images_NHWC) / fitted.temperature)
            answers = model.classify(images_NHWC, top_k=3)
        found_NK = np.zeros((8, 3))
        for row, answer in zip(found_NK, answers, strict=True):
            row[[one.index for one in answer.predictions]] = [one.probability for one in answer.predictions]
        np.testing.assert_allclose(found_NK, expected_NK, atol=1e-6)


def test_a_graph_has_a_temperature_of_its_own_which_its_checkpoint_does_not_replace(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = fit(run / "colours.onnx")
    assert fitted.written == (run / "colours.onnx",)
    assert card_of(run / "best.pt").temperature == 1
    shutil.move(run / "colours.onnx", run / "own.onnx")
    assert fit(run / "best.pt").written == (run / "best.pt",)
    assert f"own.onnx: keeps its own temperature, {fitted.temperature:.4g}" in " ".join(caplog.text.split())
    assert find_reference(find_model(str(run / "own.onnx"))) == run / "best.pt"


def test_a_reference_that_is_named_is_recognised_after_it_got_a_temperature(run: Path, tmp_path: Path) -> None:
    graph = Path(shutil.copy(run / "colours.onnx", tmp_path / "elsewhere.onnx"))
    fit(run / "best.pt")
    assert find_reference(find_model(str(graph)), explicit=run / "best.pt") == run / "best.pt"


def test_a_copy_is_written_and_the_model_stays_as_it_is(run: Path, tmp_path: Path) -> None:
    before = sha256_of(run / "best.pt")
    fitted = fit(run / "best.pt", out=tmp_path / "new" / "copy.pt")
    assert fitted.written == (tmp_path / "new" / "copy.pt",)
    assert card_of(tmp_path / "new" / "copy.pt").temperature == fitted.temperature
    assert sha256_of(run / "best.pt") == before
    assert card_of(run / "colours.onnx").temperature == 1
    fit(run / "best.pt", out=tmp_path / "new" / "copy.pt")  # of the same model: replaced
    shutil.copy(run / "last.pt", tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r"last\.pt: holds another model, .*; choose another --out"):
        fit(run / "best.pt", out=tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r"^--out copy\.onnx: expected the name of a \.pt file, as best\.pt is one"):
        fit(run / "best.pt", out=Path("copy.onnx"))


def test_an_engine_is_copied_with_its_json(run: Path, tmp_path: Path) -> None:
    engine = run / "colours.engine"
    write_engine(engine, PLAN, replace(INFO, card=card_of(run / "colours.onnx")))
    found = find_model(str(engine))
    copied = target_of(found, tmp_path / "copy.engine")
    assert write_temperature(found, copied, Temperature(1.5, FIT)) == [copied]
    assert read_plan(copied, read_engine_info(copied)) == PLAN
    assert (read_engine_info(copied).card.temperature, read_engine_info(engine).card.temperature) == (1.5, 1.0)
    assert json_path(copied).is_file()


def test_nothing_is_written_into_a_folder_where_a_training_runs(run: Path) -> None:
    before = sha256_of(run / "best.pt")
    with locked(run), pytest.raises(OutputError, match="another process writes there; wait for it or stop it"):
        fit(run / "best.pt")
    assert sha256_of(run / "best.pt") == before


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> Path:
        raise OutputError(f"{folder}: cannot be written: Permission denied")

    monkeypatch.setattr("rtk.workflow.rewrite_card.make_writable_folder", refuse)
    monkeypatch.setattr("rtk.workflow.fit_temperature.open_model", lambda *model, **options: pytest.fail("opened"))
    with pytest.raises(OutputError, match=r"run: cannot be written: Permission denied$"):
        fit(run / "best.pt")


def test_a_model_of_the_zoo_is_never_rewritten(tmp_path: Path) -> None:
    name = "resnet20v1-cifar10"
    for given, suffix in ((name, ".pt"), (str(zoo_file(name, ".onnx")), ".onnx")):
        with pytest.raises(
            UsageError,
            match=f"^{name}: a file of the zoo, which stays as it is; write a copy that has the temperature: "
            f"--out {name}{suffix}$",
        ):
            target_of(find_model(given), None)
    assert target_of(find_model(name), tmp_path / "mine.pt") == tmp_path / "mine.pt"


def test_the_standard_error_is_that_of_the_bootstrap() -> None:
    from rtk.bench.evaluation.calibration import fit_temperature as fitted
    from rtk.bench.evaluation.temperature import standard_error

    random = np.random.default_rng(2)
    logits_NK = random.normal(0, 3, (2_000, 5)).astype(np.float32)
    chances_NK = softmax(logits_NK, temperature=1.5)
    labels_N = np.array([random.choice(5, p=chances_K) for chances_K in chances_NK])
    temperature = fitted(logits_NK, labels_N)
    assert temperature == pytest.approx(1.5, abs=0.15)
    drawn = [random.integers(0, 2_000, 2_000) for _ in range(60)]
    spread = np.std([fitted(logits_NK[index], labels_N[index]) for index in drawn], ddof=1)
    # the spread of 60 draws has a standard error of 9 %
    assert standard_error(logits_NK, labels_N, temperature=temperature) == pytest.approx(spread, rel=0.35)


def test_the_confidences_of_an_evaluation_are_the_probabilities_of_rtk_classify() -> None:
    logits_NK = np.random.default_rng(1).normal(0, 9, (500, 7)).astype(np.float32)
    for temperature in (1.0, 0.3, 2.5):
        scores = scores_of(logits_NK, np.zeros(500, np.int64), temperature=temperature)
        probabilities_NK = softmax(logits_NK, temperature=temperature)
        np.testing.assert_allclose(scores.confidences_N, probabilities_NK.max(axis=1), rtol=1e-12)
        np.testing.assert_allclose(scores.label_probabilities_N, probabilities_NK[:, 0], rtol=1e-9)
