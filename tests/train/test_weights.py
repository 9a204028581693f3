"""Initial weights: read from files of several kinds, rejected if layers do not fit, frozen on request."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.log import logged
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.card import ModelCard
from rtk.core.errors import ArtifactError, UnknownNameError, UsageError
from rtk.core.files import make_folder
from rtk.core.models import names
from rtk.core.models.model import build_model, build_network
from rtk.train import weights as weights_module
from rtk.train.config import TrainConfig
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.weights import load_weights, read_weights
from safetensors.torch import save_file
from torch import Tensor, nn

CLOSED_PORT = "http://127.0.0.1:9/"
"""An address of this machine where no server listens."""
Weights = dict[str, Tensor]


@pytest.fixture(autouse=True)
def no_network_no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(weights_module, "PUBLISHED_URL", CLOSED_PORT)
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


@pytest.fixture(scope="module")
def published(randomise: Callable[..., None]) -> Weights:
    """The content of a weight file of resnet18: a thousand classes, three channels."""
    network = build_network("resnet18", in_channels=3, classes=1000)
    randomise(network, seed=9)
    return dict(network.state_dict())


def fresh(arch: str = "resnet18", *, channels: int = 3, classes: int = 10) -> nn.Module:
    return build_network(arch, in_channels=channels, classes=classes).eval()


def load(network: nn.Module, path: Path, arch: str = "resnet18") -> str:
    return load_weights(network, arch, str(path), data_dir=None)


# Reading.


def test_all_layers_except_the_last_come_from_the_file(published: Weights, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(published, path)
    network = fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    words = load(network, path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("fc.") else published[name]), name
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert words == f"mine.pth, sha256 {sha256}; last layer reinitialised for 10 instead of 1,000 classes"


def test_with_the_same_number_of_classes_all_layers_come_from_the_file(published: Weights, tmp_path: Path) -> None:
    torch.save(published, tmp_path / "mine.pth")
    network = fresh(classes=1000)
    assert re.fullmatch(r"mine\.pth, sha256 [0-9a-f]{64}", load(network, tmp_path / "mine.pth"))
    assert all(torch.equal(value, published[name]) for name, value in network.state_dict().items())


def test_a_grey_image_gets_the_logits_of_the_same_image_in_three_channels(published: Weights, tmp_path: Path) -> None:
    torch.save(published, tmp_path / "mine.pth")
    colour, grey = fresh(classes=1000), fresh(classes=1000, channels=1)
    load(colour, tmp_path / "mine.pth")
    assert load(grey, tmp_path / "mine.pth").endswith("; first kernel summed over three channels for grey images")
    x_N1HW = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = colour(x_N1HW.expand(-1, 3, -1, -1)), grey(x_N1HW)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def without_counts(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        without_counts,  # as in files of PyTorch before 0.4.1
        lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}, "epoch": 3},
        lambda weights: {"model": weights},
        lambda weights: {"state_dict": {"x": torch.ones(1)}, "state_dict_ema": weights, "best": np.float64(0.9)},
        lambda weights: {f"module._orig_mod.{name}": value for name, value in weights.items()},
        lambda weights: {"net": {f"backbone.{name}": value.double() for name, value in weights.items()}},
        lambda weights: {name: value.half() if value.is_floating_point() else value for name, value in weights.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_other_programs_are_read(
    published: Weights, tmp_path: Path, wrap: Callable[[Weights], Any], zipped: bool
) -> None:
    torch.save(wrap(published), tmp_path / "mine.pth", _use_new_zipfile_serialization=zipped)
    network = fresh()
    load(network, tmp_path / "mine.pth")
    torch.testing.assert_close(network.get_parameter("conv1.weight"), published["conv1.weight"], atol=1e-3, rtol=1e-3)
    assert network.get_parameter("conv1.weight").dtype == torch.float32


def test_a_safetensors_file_is_read_and_the_description_says_what_was_changed(
    published: Weights, tmp_path: Path
) -> None:
    save_file({f"model.{name}": value for name, value in published.items()}, tmp_path / "mine.safetensors")
    network = fresh()
    assert load(network, tmp_path / "mine.safetensors").endswith(
        "; prefix model. removed; last layer reinitialised for 10 instead of 1,000 classes"
    )
    assert torch.equal(network.get_parameter("conv1.weight"), published["conv1.weight"])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_and_the_origin_of_weights_are_found_below_a_prefix(tmp_path: Path, channels: int) -> None:
    network = build_network("resnet18", in_channels=channels, classes=1000)
    save_file({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "mine.safetensors")
    weights = read_weights("resnet18", str(tmp_path / "mine.safetensors"), data_dir=None)
    assert (weights.channels, weights.of_imagenet) == (channels, True)


def test_a_checkpoint_of_rtk_is_read(checkpoint_path: Path) -> None:
    network = fresh("resnet8v1", classes=3)
    words = load(network, checkpoint_path, "resnet8v1")
    saved = load_checkpoint(checkpoint_path)
    assert torch.equal(network.get_parameter("stem.0.weight"), saved.weights["network.stem.0.weight"])
    assert (
        words == f"tiny.pt, sha256 {saved.card.checkpoint_sha256}; last layer reinitialised for 3 instead of 10 classes"
    )


def test_a_model_of_the_zoo_is_found_by_its_name() -> None:
    assert load_weights(fresh("resnet20v1"), "resnet20v1", "resnet20v1-cifar10", data_dir=None).startswith(
        "resnet20v1-cifar10.pt, sha256 "
    )


# Rejected files.


def rejection(network: nn.Module, path: Path, arch: str = "resnet18") -> str:
    with pytest.raises(ArtifactError) as caught:
        load(network, path, arch)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_error_for_weights_that_do_not_fit_names_layers_and_shapes(published: Weights, tmp_path: Path) -> None:
    changed = {name: value for name, value in published.items() if not name.startswith("layer4.1.")}
    changed |= {"extra.weight": torch.ones(2), "layer1.0.conv1.weight": torch.ones(64, 32, 3, 3)}
    torch.save(changed, tmp_path / "mine.pth")
    assert rejection(fresh(), tmp_path / "mine.pth") == (
        "its weights do not fit resnet18; missing: layer4.1.conv1.weight, layer4.1.bn1.weight, layer4.1.bn1.bias and "
        "7 more; unknown: extra.weight; wrong shape: layer1.0.conv1.weight is 64 x 32 x 3 x 3 instead of "
        "64 x 64 x 3 x 3"
    )


def test_the_error_for_weights_of_another_network_names_it(checkpoint_path: Path) -> None:
    assert rejection(fresh(), checkpoint_path) == "holds weights of resnet8v1, expected resnet18"
    torch.save(fresh().state_dict(), checkpoint_path.with_name("other.pth"))
    assert rejection(fresh("resnet34"), checkpoint_path.with_name("other.pth"), "resnet34").startswith(
        "its weights do not fit resnet34; missing: layer1.2.conv1.weight, "
    )


def test_weights_that_do_not_fit_leave_the_network_unchanged(published: Weights, tmp_path: Path) -> None:
    torch.save({**published, "extra": torch.ones(1)}, tmp_path / "mine.pth")
    network = fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rejection(network, tmp_path / "mine.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}, {"state_dict": {"a": "b"}}, torch.ones(2)])
def test_a_file_without_weights_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "mine.pth")
    assert rejection(fresh(), tmp_path / "mine.pth") == (
        "holds no weights; expected a checkpoint of rtk or a state dict of tensors"
    )


def test_a_damaged_file_is_rejected(published: Weights, tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(published, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        content = (tmp_path / "whole.pth").read_bytes()
        (tmp_path / "mine.pth").write_bytes(content[: len(content) // 2])
        assert rejection(fresh(), tmp_path / "mine.pth") == "truncated, damaged, or not a checkpoint of rtk"


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_contains_code_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": RunsCode()}, tmp_path / "mine.pth", _use_new_zipfile_serialization=zipped)
    assert rejection(fresh(), tmp_path / "mine.pth") == (
        "refused: it holds a pickled posix.mkdir, which would run code when loaded; expected a checkpoint of rtk or a "
        "state dict; to save the weights alone, where that code is: torch.save(network.state_dict(), 'weights.pth')"
    )
    assert not (tmp_path / "canary").exists()


def test_the_error_for_an_unknown_name_lists_the_known_ones() -> None:
    expected = (
        "--weights 'imagnet' is unknown; did you mean imagenet? known: a file, imagenet, imagenet-v1, resnet20v1-"
    )
    with pytest.raises(UnknownNameError) as caught:
        load_weights(fresh(), "resnet18", "imagnet", data_dir=None)
    assert str(caught.value).startswith(expected)


# Published files.


def test_the_published_files_are_those_of_torchvision() -> None:
    """Names as in torchvision's table of weights; the digits are the first of each file's SHA-256."""
    assert names.published_file("imagenet", "resnet50") == "resnet50-11ad3fa6.pth"
    assert names.published_file("imagenet-v1", "resnet50") == "resnet50-0676ba61.pth"
    assert names.published_checksum("resnet18-f37072fd.pth") == "sha256:f37072fd"
    for files in names.PUBLISHED.values():
        assert list(files) == ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
        assert all(re.fullmatch(f"{arch}-[0-9a-f]{{8}}\\.pth", file) for arch, file in files.items())


def test_a_published_file_is_downloaded_once_and_checked(
    published: Weights, tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    torch.save(published, tmp_path / "some.pth")
    name = f"resnet18-{hashlib.sha256((tmp_path / 'some.pth').read_bytes()).hexdigest()[:8]}.pth"
    shutil.copy(tmp_path / "some.pth", served / name)
    monkeypatch.setattr(weights_module, "PUBLISHED_URL", url)
    monkeypatch.setitem(names.PUBLISHED["imagenet"], "resnet18", name)
    network = fresh()
    words = load_weights(network, "resnet18", "imagenet", data_dir=tmp_path / "data")
    assert words.startswith(f"{name}, sha256 ")
    assert torch.equal(network.get_parameter("conv1.weight"), published["conv1.weight"])
    (served / name).unlink()
    assert load_weights(fresh(), "resnet18", "imagenet", data_dir=tmp_path / "data") == words
    assert [path.name for path in (tmp_path / "data" / "weights").iterdir()] == [name]
    torch.save({**published, "conv1.weight": -published["conv1.weight"]}, tmp_path / "data" / "weights" / name)
    with pytest.raises(
        ArtifactError, match=f"{name}: altered or truncated: its sha256 is .*; remove it to download it"
    ):
        load_weights(fresh(), "resnet18", "imagenet", data_dir=tmp_path / "data")


def test_a_published_file_with_another_checksum_is_rejected_and_not_kept(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served = server
    (served / "resnet18-f37072fd.pth").write_bytes(b"something else")
    monkeypatch.setattr(weights_module, "PUBLISHED_URL", url)
    with pytest.raises(ArtifactError, match=r"the download failed \(the checksum does not match\)"):
        load_weights(fresh(), "resnet18", "imagenet", data_dir=tmp_path / "data")
    assert list((tmp_path / "data" / "weights").iterdir()) == []


def test_without_a_connection_the_error_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_weights(fresh(), "resnet18", "imagenet", data_dir=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'weights' / 'resnet18-f37072fd.pth'}: missing, and the download failed (no connection); download "
        f"{CLOSED_PORT}resnet18-f37072fd.pth and put it there, or pass another file with --weights"
    )


# Training from them.


@pytest.fixture
def start(card: ModelCard, randomise: Callable[..., None], tmp_path: Path) -> Path:
    """A checkpoint of resnet8v1 for ten classes."""
    model = build_model(card)
    randomise(model.network, seed=3)
    save_checkpoint(tmp_path / "start.pt", card, model.state_dict())
    return tmp_path / "start.pt"


@pytest.fixture
def config(class_folders: Path, tmp_path: Path, start: Path) -> Callable[..., TrainConfig]:
    """Makes configs of two epochs from that checkpoint, on 24 images of three classes."""

    def make(out: str, **changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {"epochs": 2, "batch_size": 8, "lr": 0.05, "precision": "fp32", "compile": "off"}
        settings |= {"weights": str(start), "dataset": str(class_folders), "out": tmp_path / out, **changes}
        return TrainConfig("resnet8v1", **settings)

    return make


def test_training_starts_from_the_weights_and_the_card_says_so(config: Callable[..., TrainConfig], start: Path) -> None:
    lines: list[str] = []
    trained = logged(lines.append, train, config("run", lr=1e-9))  # so low that the weights hardly change
    old, new = load_checkpoint(start), load_checkpoint(trained.best)
    torch.testing.assert_close(new.weights["network.stem.0.weight"], old.weights["network.stem.0.weight"])
    assert new.weights["network.head.dense.weight"].shape == (3, 64)
    assert new.card.training is not None
    assert new.card.training.start == (
        f"start.pt, sha256 {old.card.checkpoint_sha256}; last layer reinitialised for 3 instead of 10 classes"
    )
    (said,) = (line for line in lines if line.startswith("initial weights: "))
    assert said.split() == f"initial weights: {new.card.training.start}".split()
    assert all(len(line) <= 80 for line in said.splitlines())
    assert f"started from {new.card.training.start}" in " ".join(new.card.to_text(is_checkpoint=True).split())


@pytest.mark.parametrize("recipe", ["rtk", "finetune"])
def test_a_frozen_backbone_keeps_its_weights_and_its_statistics(
    config: Callable[..., TrainConfig], start: Path, recipe: str
) -> None:
    trained = train(config("run", freeze=True, recipe=recipe))
    old = load_checkpoint(start).weights
    for file in (trained.best, trained.run_dir / "last.pt"):
        new = load_checkpoint(file).weights
        for name, value in new.items():
            if name.startswith("network.") and not name.startswith("network.head."):
                assert torch.equal(value, old[name]), name
            if name.startswith("network.head."):
                assert not torch.equal(value, old[name]), name


@pytest.mark.parametrize("changes", [{"freeze": True}, {"recipe": "finetune"}, {"recipe": "finetune", "holdout": 6}])
def test_a_training_from_weights_resumes_where_it_stopped(
    config: Callable[..., TrainConfig], start: Path, changes: dict[str, Any]
) -> None:
    whole = train(config("whole", **changes))

    def stop(line: str) -> None:
        if line.startswith("epoch   1/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logged(stop, train, config("stopped", **changes))
    start.unlink()  # resuming does not read it again
    stopped = resume(config("stopped").run_dir)
    one, other = load_checkpoint(whole.best), load_checkpoint(stopped.best)
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one.card.training is not None
    assert other.card.training is not None
    assert other.card.training.start == one.card.training.start != ""


def test_recomputed_activations_train_to_the_same_weights(config: Callable[..., TrainConfig]) -> None:
    lines: list[str] = []
    plain = train(config("plain", weights=None))
    recomputed = logged(lines.append, train, config("recomputed", weights=None, checkpoint_activations=True))
    one, other = load_checkpoint(plain.best).weights, load_checkpoint(recomputed.best).weights
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert any(line.endswith("not compiled (activations are checkpointed)") for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": None, "freeze": True}, "--freeze needs --weights: layers with random weights must be trained"),
        ({"weights": "imagenet"}, "--weights imagenet: no weights for resnet8v1; available for resnet18, resnet34, "),
        (
            {"checkpoint_activations": True, "compile": "on"},
            "--checkpoint-activations and --compile on exclude each other; leave one of them out",
        ),
    ],
)
def test_contradictory_options_are_usage_errors(
    config: Callable[..., TrainConfig], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        config("run", **changes)
    assert str(caught.value).startswith(message)


def test_a_relative_path_of_initial_weights_is_stored_in_full(
    config: Callable[..., TrainConfig], start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(start.parent)
    folder = RunFolder(make_folder(config("run").run_dir))
    folder.begin(config("run", weights="start.pt"))
    written = TrainConfig.from_json(folder.config.read_text(), source="x")
    assert written.weights == str(start.resolve())
    assert replace(written, weights="imagenet", arch="resnet18").weights == "imagenet"
