"""TrainConfig: what it refuses, what it keeps, and that the command line offers all of it."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from rtk.commands.train import train
from rtk.core.errors import ArtifactError, UsageError
from rtk.train.config import TrainConfig


def test_every_field_is_an_option_with_the_same_default() -> None:
    options = {
        name.rstrip("_"): parameter.default
        for name, parameter in inspect.signature(train).parameters.items()
        if name not in ("context", "resume")  # what the command itself needs
    }
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert fields.pop("arch") is dataclasses.MISSING
    assert options.pop("arch") is None  # left out when a run goes on
    assert options == fields


def test_the_config_survives_json(tmp_path: Path) -> None:
    config = TrainConfig("resnet20v1", epochs=3, lr=0.05, seed=7, data_dir=tmp_path / "a", out=tmp_path / "b")
    assert TrainConfig.from_json(config.to_json(), source="x") == config
    assert TrainConfig.from_json(TrainConfig("resnet29v2").to_json(), source="x") == TrainConfig("resnet29v2")


def test_what_was_asked_for_replaces_the_recipes_values() -> None:
    values = TrainConfig("resnet20v1", recipe="paper", epochs=3, lr=0.5).values
    assert (values.epochs, values.lr, values.batch_size) == (3, 0.5, 128)
    assert TrainConfig("resnet20v1", recipe="keras").values.batch_size == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "resnet21v1"}, "architecture 'resnet21v1': depth 21 is not 6n+2"),
        ({"arch": "vgg16"}, "architecture 'vgg16' is unknown"),
        ({"recipe": "none"}, "recipe 'none' is unknown; known: rtk, "),
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"batch_size": 1}, "--batch-size 1: expected 2 or more"),
        ({"lr": -1.0}, "--lr -1.0: expected a positive number"),
        ({"seed": -1}, "--seed -1: expected 0 or more"),
        ({"device": "gpu"}, "--device 'gpu': expected auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, "--device 'cuda:x': expected auto, cpu, cuda or cuda:N"),
        ({"precision": "fp64"}, "--precision 'fp64' is unknown; known: auto, fp32, bf16"),
        ({"compile": "yes"}, "--compile 'yes' is unknown; known: auto, on, off"),
        ({"holdout": -1}, "--holdout -1: expected 0 or more images"),
        ({"train_images": 1}, "--train-images 1: expected 2 or more"),
        ({"eval_every": 0}, "--eval-every 0: expected 1 or more epochs"),
    ],
)
def test_values_that_make_no_sense_are_wrong_usage(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**{"arch": "resnet20v1", **change})
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("cifar10", "runs/resnet20v1-cifar10-s3"),
        ("/data/my pictures/", "runs/resnet20v1-my pictures-s3"),
        (".", "runs/resnet20v1-here-s3"),
    ],
)
def test_a_run_is_named_after_network_data_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, folder: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert TrainConfig("resnet20v1", dataset=dataset, seed=3).run_dir == Path(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"data_dir": null, "out": null}', json.dumps({"arch": "resnet20v1"})]
)
def test_a_file_that_is_no_config_is_named(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"^runs/a/config\.json: not the config of a run \("):
        TrainConfig.from_json(text, source="runs/a/config.json")
