"""int8 graphs of the zoo, exported anew from the real data sets: as many answers as in docs/int8.md are PyTorch's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from rtk.core.artifacts.checkpoint import load_checkpoint
from rtk.core.data.open_dataset import open_dataset
from rtk.core.zoo import zoo_names
from rtk.export.config import INT8_FLAVORS, Int8Config
from rtk.export.int8.calibration import draw_calibration
from rtk.export.int8.quantize import int8_from_checkpoint, reference_logits
from rtk.export.int8.ranges import logits_as_written
from rtk.tools.int8_record import AS_WRITTEN, RECORDS, read_record
from rtk.workflow.models import find_model

RUNTIME = {"tensorrt": AS_WRITTEN, "cpu": "onnx", "openvino": "openvino"}
CHANCE = 15
"""Answers by which kernels of another processor may differ: of 50 that differ from PyTorch's, twice the deviation."""
FLAVORS = [pytest.param(name, marks=pytest.mark.long if name == "openvino" else ()) for name in INT8_FLAVORS]
NETWORKS = [pytest.param(name, marks=pytest.mark.long if "fashion" in name else ()) for name in zoo_names()]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize("model", NETWORKS)
def test_a_new_export_has_the_answers_of_the_record(model: str, flavor: str, tmp_path: Path) -> None:
    path = find_model(model).checkpoint
    assert path is not None
    checkpoint = load_checkpoint(path)
    dataset = open_dataset(checkpoint.card.dataset)
    done = int8_from_checkpoint(
        checkpoint,
        tmp_path / "a.onnx",
        calibration=draw_calibration(dataset, checkpoint.card),
        config=Int8Config(flavor, weight_bits="8"),  # type: ignore[arg-type]
    )
    test = dataset.split("test")
    answers_N = logits_as_written(onnx.load(done.path), test.images_NHWC).argmax(axis=1)
    same = int(np.sum(answers_N == reference_logits(checkpoint, test.images_NHWC).argmax(axis=1)))
    record = read_record(RECORDS / f"{model}.json")
    (recorded,) = [
        one.same for one in record.answers if one.graph == f"rtk {flavor}" and one.runtime == RUNTIME[flavor]
    ]
    assert same >= recorded - CHANCE
