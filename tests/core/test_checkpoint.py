"""Checkpoints: written whole, read as data only, refused in one clear line."""

import contextlib
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
from rtk.core.card import Input, ModelCard, Preprocessing
from rtk.core.errors import ArtifactError, OutputError
from rtk.core.files import sha256_of
from rtk.core.models.model import build_model


class RunsCode:
    """Creates the folder `canary` when Python's own unpickler reads it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def refused(path: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_weights_card_and_training_state_survive(card: ModelCard, tmp_path: Path) -> None:
    model = build_model(card)
    state = {"epoch": 3, "losses": torch.arange(4.0), "history": [{"epoch": 1, "lr": 0.1}], "best": None}
    save_checkpoint(tmp_path / "a.pt", card, model.state_dict(), training=state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.card == replace(card, checkpoint_sha256=sha256_of(tmp_path / "a.pt"))
    assert loaded.weights.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.weights[name], value) for name, value in model.state_dict().items())
    assert loaded.training is not None
    assert torch.equal(loaded.training["losses"], torch.arange(4.0))
    assert loaded.training["history"] == [{"epoch": 1, "lr": 0.1}]


def test_a_loaded_model_gives_the_same_logits(checkpoint_path: Path) -> None:
    loaded = load_checkpoint(checkpoint_path)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    first, second = loaded.model(), load_checkpoint(checkpoint_path).model()
    assert not first.training
    with torch.inference_mode():
        assert torch.equal(first(images), second(images))


def test_preprocessing_comes_from_the_weights(card: ModelCard, tmp_path: Path) -> None:
    per_pixel = replace(card, input=Input(4, 4, 1), preprocessing=Preprocessing((0.5,), (1.0,), per_pixel=True))
    model = build_model(per_pixel)
    model.normalise.mean.copy_(torch.arange(16.0).reshape(1, 4, 4) / 16)
    save_checkpoint(tmp_path / "a.pt", per_pixel, model.state_dict())
    normalise = load_checkpoint(tmp_path / "a.pt").model().normalise
    pixels = torch.full((1, 4, 4, 1), 255, dtype=torch.uint8)
    assert torch.equal(normalise(pixels)[0, 0], 1 - torch.arange(16.0).reshape(4, 4) / 16)


def test_preprocessing_divides_by_255_subtracts_and_divides(card: ModelCard) -> None:
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    chosen = replace(card, preprocessing=Preprocessing((0.5, 0.25, 0.1), (0.5, 0.125, 0.2)))
    normalised = build_model(chosen).normalise(pixels)
    assert normalised.flatten().tolist() == pytest.approx([1.0, -2.0, 0.5])


def test_a_missing_file_and_a_folder_are_not_checkpoints(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pt") == "no such checkpoint"
    assert refused(tmp_path) == "no such checkpoint"


def test_an_empty_file_is_refused_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    assert refused(tmp_path / "a.pt") == "an empty file; expected a checkpoint written by rtk"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(checkpoint_path: Path, tmp_path: Path, share: float) -> None:
    content = checkpoint_path.read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(len(content) * share)])
    assert refused(tmp_path / "a.pt") == "truncated, damaged, or not a checkpoint of rtk"


def test_one_wrong_bit_in_the_weights_is_found(checkpoint_path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(checkpoint_path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    content = bytearray(checkpoint_path.read_bytes())
    content[largest.header_offset + largest.file_size // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert refused(tmp_path / "a.pt") == "damaged: its content does not match its checksums"


def test_damage_anywhere_raises_no_other_error(checkpoint_path: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    content = np.frombuffer(checkpoint_path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = content.copy()
        damaged[random.integers(0, 4_000 if random.random() < 0.5 else len(content), 10)] = random.integers(0, 256, 10)
        (tmp_path / "a.pt").write_bytes(damaged.tobytes())
        with contextlib.suppress(ArtifactError):  # damage between the members of the archive may be harmless
            load_checkpoint(tmp_path / "a.pt")


def test_text_and_plain_pickles_are_refused(tmp_path: Path) -> None:
    for content in (b"not a checkpoint", pickle.dumps({"format": "rtk-checkpoint-1"})):
        (tmp_path / "a.pt").write_bytes(content)
        assert refused(tmp_path / "a.pt") == "truncated, damaged, or not a checkpoint of rtk"


@pytest.mark.parametrize("content", [[1, 2], {"format": "rtk-checkpoint-2"}])
def test_a_torch_file_of_another_program_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pt")
    expected = "a PyTorch file, but not a checkpoint of rtk (expected format rtk-checkpoint-1)"
    assert refused(tmp_path / "a.pt") == expected


@pytest.mark.parametrize("content", [{"card": "{}"}, {"weights": {}}, {"card": 3, "weights": {}}, {}])
def test_a_checkpoint_without_card_or_weights_is_incomplete(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save({"format": "rtk-checkpoint-1", **content}, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt") == "incomplete: the card or the weights are missing"


def test_the_error_for_a_checkpoint_with_an_invalid_card_names_the_file(tmp_path: Path) -> None:
    torch.save({"format": "rtk-checkpoint-1", "card": "{}", "weights": {}}, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt") == "its card was not written by rtk"


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_nothing(card: ModelCard, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = {"format": "rtk-checkpoint-1", "card": card.to_json(), "weights": {"a": RunsCode(canary)}}
    torch.save(content, tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt") == (
        "refused: it holds a pickled posix.mkdir, which would run code when loaded; expected a checkpoint written by "
        "rtk; to save the weights alone, where that code is: torch.save(network.state_dict(), 'weights.pth')"
    )
    assert not canary.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_that_would_run_code_runs_nothing(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "a.pt").write_bytes(pickle.dumps(RunsCode(canary), protocol=protocol))
    refused(tmp_path / "a.pt")
    assert not canary.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt").startswith(
        "refused: it is a whole pickled network, with torch.nn.modules.linear.Linear, which would run code when loaded"
    )


@pytest.mark.parametrize(
    "change",
    [{"arch": "resnet14v1"}, {"classes": ("a", "b")}, {"arch": "resnet20v2"}],
    ids=["depth", "classes", "family"],
)
def test_weights_that_do_not_fit_the_card_are_refused(
    card: ModelCard, tmp_path: Path, change: dict[str, object]
) -> None:
    save_checkpoint(tmp_path / "a.pt", replace(card, **change), build_model(card).state_dict())  # type: ignore[arg-type]
    with pytest.raises(ArtifactError) as caught:
        load_checkpoint(tmp_path / "a.pt").model()
    arch = change.get("arch", card.arch)
    assert str(caught.value).startswith(f"resnet8v1-cifar10: the weights do not fit {arch}: ")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_an_unknown_architecture_is_refused(card: ModelCard, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", replace(card, arch="vgg16"), {})
    with pytest.raises(ArtifactError, match=r"^resnet8v1-cifar10: architecture 'vgg16' is unknown; known: resnet20v1"):
        load_checkpoint(tmp_path / "a.pt").model()


def test_the_card_has_the_sha256_of_the_file(checkpoint_path: Path) -> None:
    assert load_checkpoint(checkpoint_path).card.checkpoint_sha256 == sha256_of(checkpoint_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, save_untrained: Callable[..., Path]) -> None:
    path = save_untrained(tmp_path / "a.pt")
    before = path.read_bytes()
    program = """
        import resource, sys
        from pathlib import Path
        from rtk.core.artifacts.checkpoint import load_checkpoint, save_checkpoint
        from rtk.core.errors import OutputError
        path = Path(sys.argv[1])
        old = load_checkpoint(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            save_checkpoint(path, old.card, old.weights)
        except OutputError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}: cannot be written: File too large\n"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_a_full_device_is_an_output_error(card: ModelCard) -> None:
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"):
        save_checkpoint(Path("/dev/full"), card, build_model(card).state_dict())
