"""A program of a user that uses all of the Python API; test_user_program.py runs it, and mypy checks it strictly."""

import io
import sys
from pathlib import Path

import numpy as np
import rtk
import torch
from PIL import Image
from rtk.train.config import TrainConfig


def trained(folder: Path) -> Path:
    """Train a small network, evaluate it and another, and return the checkpoint."""
    result = rtk.train(
        "resnet8v1", dataset="shapes", recipe="quick", epochs=1, train_images=256, out=folder / "run", eval=False
    )
    assert result.card.score is not None
    print(f"{result.card.name}: {result.card.score.accuracy:.1%} after {len(result.history)} epoch")
    again: rtk.TrainResult = rtk.train(resume=result.run_dir, eval=False)
    assert again.best == result.best
    evaluation: rtk.Evaluation = rtk.evaluate(result.best, split="test", backend="torch")
    comparison: rtk.Comparison = rtk.evaluate(result.best, result.best, backend="torch", report=folder / "eval")
    assert comparison.first.correct == evaluation.correct
    return result.best


def exported(checkpoint: Path, folder: Path) -> Path:
    """Export it, and return the graph."""
    result: rtk.ExportResult = rtk.export(checkpoint, out=folder, name="shapes")
    assert result.graph is not None
    try:
        rtk.export(checkpoint, precision="fp12")
    except rtk.UsageError as error:
        print(f"refused: {error}")
    return result.graph


def measured(graph: Path, checkpoint: Path, folder: Path) -> None:
    """Measure it, and compare the report with itself."""
    result: rtk.BenchResult = rtk.bench(
        graph,
        reference=checkpoint,
        backend=["onnx"],
        batch=[8],
        scope="sync",
        seconds=0.2,
        baselines=False,
        report=folder / "report",
    )
    print(f"{len(result.report.cells)} cells, passed: {result.passed}, failure: {result.failure}")
    compared: rtk.ReportComparison = rtk.bench(compare=(folder / "report", folder / "report"), limit=10.0)
    assert compared.passed


def classified(graph: Path, folder: Path) -> None:
    """Classify everything that can be an image."""
    pixels_HWC = np.zeros((48, 32, 3), np.uint8)
    picture = Image.fromarray(pixels_HWC)
    picture.save(folder / "black.png")
    content = (folder / "black.png").read_bytes()
    with rtk.load(graph, backend="onnx", device="cpu", fit="letterbox") as model:
        answer: rtk.Answer = model(picture, top_k=2)
        prediction: rtk.Prediction = answer.predictions[0]
        print(prediction.label, prediction.probability > 0, sorted(answer.to_dict()))
        with (folder / "black.png").open("rb") as file:
            answers = model.classify(
                [folder / "black.png", content, bytearray(content), memoryview(content), io.BytesIO(content), file]
            )
        answers += model.classify([picture, pixels_HWC])
        tensor_NCHW = torch.zeros(2, 3, 48, 32, dtype=torch.uint8)
        answers += model.classify(tensor_NCHW, layout="CHW", batch_size=1)
        answers += list(model.stream((pixels_HWC for _ in range(3)), batch_size=2))
        print({answer.label == one.label and not one.error for one in answers}, len(answers))
        print(model.logits(np.zeros((2, *model.card.input.shape), np.uint8)).shape, model.runs_on != "")
    try:
        model(pixels_HWC)
    except rtk.RtkError as error:
        print(f"{type(error).__name__}: {error}")


def main() -> None:
    folder = Path(sys.argv[1])
    assert TrainConfig("resnet8v1").arch == "resnet8v1"
    checkpoint = trained(folder)
    graph = exported(checkpoint, folder)
    measured(graph, checkpoint, folder)
    classified(graph, folder)


if __name__ == "__main__":
    main()
