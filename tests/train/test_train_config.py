"""TrainConfig: what it rejects, its JSON form, and that every field is an option of the command line."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rtk.cli import help as help_groups
from rtk.cli.app import app
from rtk.cli.train import OF_THE_COMMAND
from rtk.core.errors import ArtifactError, UsageError
from rtk.core.zoo import zoo_card, zoo_names
from rtk.train.augment.options import NAMES, Augmentation
from rtk.train.config import TrainConfig, resumed_config
from rtk.train.data.preprocessing import PREPROCESSES
from rtk.train.recipes import RECIPES
from typer.main import get_command


@pytest.fixture
def parameters() -> dict[str, Any]:
    """The parameters of `rtk train` by name, as Click sees them, without those that only the command has."""
    found = {parameter.name: parameter for parameter in get_command(app).commands["train"].params}
    assert found.keys() >= set(OF_THE_COMMAND)
    return {name: parameter for name, parameter in found.items() if name not in OF_THE_COMMAND}


def test_every_field_is_an_option_with_the_same_default_and_the_reverse(parameters: dict[str, Any]) -> None:
    options = {name: parameter.default for name, parameter in parameters.items()}
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert fields.pop("arch") is dataclasses.MISSING
    assert options.pop("arch") is None  # the command resumes a run without it
    assert options == fields


def test_an_option_is_spelled_like_its_field(parameters: dict[str, Any]) -> None:
    """Only a flag that can be None has a --no- form: it can switch off what the recipe switches on."""
    for name, parameter in parameters.items():
        if name != "arch":
            assert parameter.opts == [f"--{name.replace('_', '-')}"]
            assert parameter.secondary_opts == (["--no-rgb"] if name == "rgb" else [])
            assert parameter.multiple == (name == "augment")
            assert parameter.envvar == ("RTK_DATA_DIR" if name == "data_dir" else None)


def test_every_option_has_a_help_text_and_stands_in_a_known_group() -> None:
    groups = {value for name, value in vars(help_groups).items() if name.isupper() and isinstance(value, str)}
    for field in dataclasses.fields(TrainConfig)[1:]:
        assert field.metadata["group"] in groups, field.name
        assert field.metadata["help"].endswith("."), field.name
    used = {field.metadata["group"] for field in dataclasses.fields(TrainConfig)[1:]}
    assert used == {"Data", "Recipe", "Augmentation", "Model", "Machine", "Stopping and resuming", "Output"}


def test_the_config_survives_json(tmp_path: Path) -> None:
    config = TrainConfig("resnet20v1", epochs=3, lr=0.05, seed=7, data_dir=tmp_path / "a", out=tmp_path / "b")
    config = dataclasses.replace(config, augment=("none", "rotation=15"), validation_split=0.1, select="last")
    assert TrainConfig.from_json(config.to_json(), source="x") == config
    assert TrainConfig.from_json(TrainConfig("resnet29v2").to_json(), source="x") == TrainConfig("resnet29v2")


@pytest.mark.parametrize("name", zoo_names())
def test_the_default_recipe_is_the_one_that_the_zoo_was_trained_with(name: str) -> None:
    training = zoo_card(name).training
    assert training
    of_zoo = {key: value for key, value in training.settings.items() if key not in ("precision", "device")}
    default = json.loads(json.dumps(dataclasses.asdict(TrainConfig("resnet20v1").resolved_recipe)))
    assert {key: default[key] for key in of_zoo} == of_zoo


def test_options_replace_the_values_of_the_recipe() -> None:
    values = TrainConfig("resnet20v1", recipe="paper", epochs=3, lr=0.5).resolved_recipe
    assert (values.epochs, values.lr, values.batch_size) == (3, 0.5, 128)
    assert TrainConfig("resnet20v1", recipe="keras").resolved_recipe.batch_size == 32


def test_the_epochs_option_replaces_the_steps_of_the_paper() -> None:
    assert TrainConfig("resnet20v1", recipe="paper").resolved_recipe.steps == 64_000
    values = TrainConfig("resnet20v1", recipe="paper", epochs=10).resolved_recipe
    assert (values.steps, values.for_images(50_000).epochs) == (0, 10)


def test_the_slow_start_applies_to_110_layers_and_more() -> None:
    starts = {
        depth: TrainConfig(f"resnet{depth}v1", recipe="paper").resolved_recipe.slow_start
        for depth in (20, 104, 110, 116)
    }
    assert [depth for depth, start in starts.items() if start] == [110, 116]


def test_options_change_preprocessing_augmentation_and_schedule() -> None:
    values = TrainConfig("resnet20v1", augment=("rotation=15",), preprocess="unit", resize=64, rgb=True).resolved_recipe
    assert values.augmentation == Augmentation(crop=0.125, flip="alternate", erasing=0.5, rotation=15)
    assert (values.preprocess, values.resize, values.rgb) == ("unit", 64, True)
    assert (
        TrainConfig("resnet20v1", recipe="finetune", weights="a.pt", rgb=False, preprocess="center").resolved_recipe.rgb
        is False
    )
    assert TrainConfig("resnet20v1", recipe="d2l", resize=0).resolved_recipe.resize == 0
    assert TrainConfig("resnet20v1", recipe="keras", plateau=True).resolved_recipe.schedule == "plateau"


@pytest.mark.parametrize(
    ("options", "preprocess"),
    [
        ({}, "weights"),
        ({"recipe": "quick"}, "weights"),
        ({"recipe": "finetune"}, "weights"),
        ({"recipe": "finetune", "preprocess": "standard"}, "standard"),
        ({"recipe": "keras"}, "mean-image"),  # these reproduce what was published
        ({"recipe": "keras-finetune"}, "unit"),
        ({"recipe": "keras-finetune", "preprocess": "weights"}, "weights"),
    ],
)
def test_trained_weights_keep_their_pixels_unless_other_ones_are_asked_for(
    options: dict[str, Any], preprocess: str
) -> None:
    assert TrainConfig("resnet20v1", weights="a.pt", **options).resolved_recipe.preprocess == preprocess


@pytest.mark.parametrize("preprocess", ["mean-image", "zca"])
def test_preprocessing_with_a_number_for_every_pixel_disables_progressive_resizing(preprocess: str) -> None:
    assert TrainConfig("resnet20v1").resolved_recipe.resizing
    assert TrainConfig("resnet20v1", preprocess="samplewise").resolved_recipe.resizing
    assert not TrainConfig("resnet20v1", preprocess=preprocess).resolved_recipe.resizing


@pytest.mark.parametrize(
    ("options", "split"),
    [
        ({}, ""),
        ({"holdout": 9}, "holdout"),
        ({"validation_split": 0.1}, "holdout"),
        ({"holdout": 9, "select": "last"}, ""),
        ({"select": "best"}, "test"),
        ({"recipe": "keras"}, "test"),
        ({"recipe": "keras", "select": "last"}, ""),
        ({"recipe": "keras", "validation_split": 0.1}, "holdout"),
    ],
)
def test_the_options_decide_which_split_selects_the_epoch(options: dict[str, Any], split: str) -> None:
    config = TrainConfig("resnet20v1", **options)
    assert config.selection_split(held_out="holdout" if config.holds_out else "", scored="test") == split


def test_a_validation_split_beside_a_test_split_selects_the_epoch() -> None:
    config = TrainConfig("resnet20v1")
    assert config.selection_split(held_out="validation", scored="test") == "validation"
    assert replace(config, select="last").selection_split(held_out="validation", scored="test") == ""
    assert config.selection_split(held_out="", scored="validation") == ""
    assert replace(config, select="best").selection_split(held_out="", scored="validation") == "validation"


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
        ({"validation_split": 0.0}, "--validation-split 0: expected a share above 0 and at most 0.5"),
        ({"validation_split": 0.51}, "--validation-split 0.51: expected a share above 0 and at most 0.5"),
        (
            {"validation_split": 0.1, "holdout": 9},
            "--validation-split and --holdout both hold out images; leave one of them out",
        ),
        (
            {"plateau": True, "eval_every": 3},
            "--plateau needs the loss of every epoch, but --eval-every is 3; leave one of them out",
        ),
        ({"select": "first"}, "--select 'first' is unknown; known: last, best"),
        ({"augment": ("rotate=1",)}, "--augment 'rotate' is unknown; did you mean rotation?"),
        ({"preprocess": "whiten"}, "--preprocess 'whiten' is unknown; known: standard, center, unit, mean-image, "),
        ({"recipe": "finetune"}, "--recipe finetune starts from trained weights; add --weights"),
        ({"recipe": "keras-finetune"}, "--recipe keras-finetune starts from trained weights; add --weights"),
        ({"preprocess": "weights"}, "--preprocess weights keeps that of trained weights; add --weights"),
        ({"resize": -1}, "--resize -1: expected 1 to 1024 pixels"),
        ({"train_images": 1}, "--train-images 1: expected 2 or more"),
        ({"eval_every": 0}, "--eval-every 0: expected 1 or more epochs"),
        (
            {"name": "my pets"},
            "--name 'my pets': expected letters, digits and . _ + -, at most 100 bytes; try --name my_",
        ),
        ({"save_every": -1.0}, "--save-every -1: expected 0 or more minutes"),
        ({"save_every": float("nan")}, "--save-every nan: expected 0 or more minutes"),
    ],
)
def test_invalid_values_are_usage_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**{"arch": "resnet20v1", **change})
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("cifar10", "runs/resnet20v1-cifar10-s3"),
        ("/data/my pictures/", "runs/resnet20v1-my_pictures-s3"),
        ("/data/a, 'b'\n\"c\"", "runs/resnet20v1-a_b_c-s3"),
        ("/data/\u52a8\u7269", "runs/resnet20v1-\u52a8\u7269-s3"),
        ("/data/" + "d" * 200, f"runs/resnet20v1-{'d' * 60}-s3"),
        ("/", "runs/resnet20v1-s3"),
        (".", "runs/resnet20v1-here-s3"),
    ],
)
def test_the_run_folder_is_named_after_network_data_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, folder: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = TrainConfig("resnet20v1", dataset=dataset, seed=3)
    assert (config.run_dir, config.model_name) == (Path(folder), Path(folder).name)
    elsewhere = replace(config, out=Path("there"))
    assert (elsewhere.run_dir, elsewhere.model_name) == (Path("there"), config.model_name)


def test_a_chosen_name_is_that_of_the_model_and_of_the_run_folder() -> None:
    config = TrainConfig("resnet20v1", name="pets-v2")
    assert (config.model_name, config.run_dir) == ("pets-v2", Path("runs/pets-v2"))
    assert replace(config, out=Path("there")).run_dir == Path("there")
    assert TrainConfig.from_json(config.to_json(), source="x") == config
    before = json.loads(TrainConfig("resnet20v1", seed=2).to_json())
    del before["name"]  # an earlier rtk had no such option
    assert TrainConfig.from_json(json.dumps(before), source="x").model_name == "resnet20v1-cifar10-s2"


def test_a_resumed_run_keeps_its_name() -> None:
    saved = TrainConfig("resnet20v1", seed=1)
    for same in ({}, {"name": None}, {"name": "resnet20v1-cifar10-s1"}):
        assert resumed_config(Path("run"), saved, same) == saved
    with pytest.raises(UsageError, match=r"found --name rtk \(run: resnet20v1-cifar10-s1\)"):
        resumed_config(Path("run"), saved, {"name": "rtk"})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"data_dir": null, "out": null}', json.dumps({"arch": "resnet20v1"})]
)
def test_an_invalid_config_file_is_named_in_the_error(text: str) -> None:
    with pytest.raises(ArtifactError, match=r"^runs/a/config\.json: not the config of a run \("):
        TrainConfig.from_json(text, source="runs/a/config.json")


@pytest.mark.parametrize("names", [RECIPES, NAMES, PREPROCESSES], ids=["recipes", "augmentation", "preprocessing"])
def test_the_training_page_names_all_choices(names: Iterable[str]) -> None:
    readme = (Path(__file__).parent.parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in readme] == []
