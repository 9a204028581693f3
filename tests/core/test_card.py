"""ModelCard: JSON keeps all of it, and text that is not a card is refused with a reason."""

import json
from dataclasses import replace
from typing import Any

import pytest
from rtk.core.card import Input, ModelCard, Preprocessing, Score, engine_card
from rtk.core.errors import ArtifactError


def test_a_card_survives_json_unchanged(card: ModelCard) -> None:
    assert ModelCard.from_json(card.to_json(), source="x") == card
    assert ModelCard.from_json(card.to_json(indent=2), source="x") == card


def test_a_card_without_score_and_training_survives_json(card: ModelCard) -> None:
    bare = replace(card, score=None, training=None, classes=("Kätzchen", "犬"), checkpoint_sha256="ab" * 32)
    assert ModelCard.from_json(bare.to_json(), source="x") == bare


def test_a_per_pixel_card_survives_json(card: ModelCard) -> None:
    per_pixel = replace(card, preprocessing=Preprocessing((0.5,) * 3, (1.0,) * 3, per_pixel=True))
    assert ModelCard.from_json(per_pixel.to_json(), source="x").preprocessing.per_pixel is True


def test_preprocessing_survives_json_and_is_described_in_words(card: ModelCard) -> None:
    everything = Preprocessing((0.5,) * 3, (0.25,) * 3, True, True, True, True, (96, 80))
    grey = replace(card, input=Input(28, 28, 1), preprocessing=everything)
    read = ModelCard.from_json(grey.to_json(), source="x")
    assert read == grey
    assert read.preprocessing.channels == 3
    assert not read.preprocessing.is_plain
    assert card.preprocessing.is_plain
    assert everything.to_text() == (
        "/ 255, minus the image's own mean, / the image's own deviation, minus (0.5000, 0.5000, 0.5000) on average, "
        "pixel by pixel, / (0.2500, 0.2500, 0.2500), whitened (ZCA), scaled to 96 x 80 (bilinear, not antialiased)"
    )
    assert Preprocessing((0.0,), (1.0,)).to_text() == "/ 255"


def test_a_card_of_an_earlier_version_without_these_fields_is_read(card: ModelCard) -> None:
    fields = json.loads(card.to_json())
    for name in ("image_mean", "image_deviation", "whitening", "resize"):
        del fields["preprocessing"][name]
    del fields["training"]["selected_on"]
    assert ModelCard.from_json(json.dumps(fields), source="x") == card


def test_the_json_has_readable_fields(card: ModelCard) -> None:
    fields = json.loads(card.to_json())
    assert fields["format"] == 1
    assert fields["arch"] == "resnet8v1"
    assert fields["input"] == {"height": 32, "width": 32, "channels": 3}
    assert fields["score"].items() >= {"split": "test", "correct": 9, "total": 64, "loss": 2.25}.items()
    assert fields["resizing"] == {"filter": "bilinear", "antialias": True, "crop_share": 1.0}
    assert fields["temperature"] == 1.0
    assert fields["classes"][3] == "cat"


def test_accuracy_is_correct_over_total() -> None:
    assert Score("test", correct=9_216, total=10_000, loss=0.3).accuracy == 0.9216


def test_the_shape_of_the_input_is_height_width_channels() -> None:
    assert Input(height=28, width=30, channels=1).shape == (28, 30, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "m.onnx: its card is not JSON"),
        ("[]", "m.onnx: its card was not written by rtk"),
        ('{"name": "x"}', "m.onnx: its card was not written by rtk"),
        ('{"format": 99}', "m.onnx: its card has another format than 1; use the rtk that wrote it"),
        ('{"format": 1}', "m.onnx: its card is not valid: missing field name"),
        ("[" * 100_000, "m.onnx: its card is not JSON"),
    ],
)
def test_text_that_is_not_a_card_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ArtifactError) as error:
        ModelCard.from_json(text, source="m.onnx")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("field", ["name", "arch", "dataset", "classes", "input", "preprocessing"])
def test_a_card_with_a_missing_field_is_refused_with_its_name(card: ModelCard, field: str) -> None:
    fields = json.loads(card.to_json())
    del fields[field]
    with pytest.raises(ArtifactError, match=f"m.onnx: its card is not valid: missing field {field}"):
        ModelCard.from_json(json.dumps(fields), source="m.onnx")


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"height": 0, "width": 32, "channels": 3}},
        {"input": {"height": "32", "width": 32, "channels": 3}},
        {"input": [32, 32, 3]},
        {"classes": "cat"},
        {"classes": []},
        {"classes": [1, 2]},
        {"preprocessing": {"mean": [0.5], "deviation": [0.5, 0.5, 0.5], "per_pixel": False}},
        {"preprocessing": {"mean": [0.5, 0.5, 0.5], "deviation": [0.5, 0.0, 0.5], "per_pixel": False}},
        {"preprocessing": {"mean": ["a", "b", "c"], "deviation": [0.5, 0.5, 0.5], "per_pixel": False}},
        {"preprocessing": {"mean": [], "deviation": []}},
        {"preprocessing": {"mean": [0.5, 0.5], "deviation": [0.5, 0.5]}},
        {"preprocessing": {"mean": [0.5] * 3, "deviation": [0.5] * 3, "resize": [0, 96]}},
        {"preprocessing": {"mean": [0.5] * 3, "deviation": [0.5] * 3, "resize": 96}},
        {"preprocessing": {"mean": [0.5] * 3, "deviation": [0.5] * 3, "blurred": True}},
        {
            "input": {"height": 64, "width": 64, "channels": 3},  # its matrix would take 600 MB
            "preprocessing": {"mean": [0.5] * 3, "deviation": [0.5] * 3, "whitening": True},
        },
        {"arch": 7},
        {"score": 0.9},
        {"score": {"split": "test", "correct": 1, "total": 0, "loss": 1.0}},
        {"score": {"split": "test", "correct": "1", "total": 2, "loss": 1.0}},
        {"preprocessing": {"mean": [0.5] * 3, "deviation": [0.5] * 3, "per_pixel": "false"}},
        {"notes": None},
        {"unheard_of": 1},
    ],
)
def test_a_card_that_contradicts_itself_is_refused(card: ModelCard, change: dict[str, object]) -> None:
    fields = json.loads(card.to_json()) | change
    with pytest.raises(ArtifactError, match=r"^m\.onnx: its card "):
        ModelCard.from_json(json.dumps(fields), source="m.onnx")


def test_the_text_fits_the_terminal_and_shows_notes_as_indented_lines(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    note = {
        "images": 4_800,
        "largest_logit_difference": 3.76701e-05,
        "libraries": {"torch": "2.13.0", "onnx": "1.23.2"},
    }
    noted = replace(card, checkpoint_sha256="a" * 64, notes={"training": "rtk train resnet8v1", "export": note})
    lines = noted.to_text(is_checkpoint=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-9:] == [
        "checkpoint    sha256",
        "              " + "a" * 64,
        "command       rtk train resnet8v1",
        "export",
        "  images: 4,800",
        "  largest_logit_difference: 3.76701e-05",
        "  libraries:",
        "    torch: 2.13.0",
        "    onnx: 1.23.2",
    ]


def test_the_text_names_only_the_first_of_many_classes(card: ModelCard) -> None:
    many = replace(card, classes=tuple(f"class{number}" for number in range(1_000)))
    words = " ".join(many.to_text().split())
    assert "class18, class19, and 980 more data set" in words


def test_characters_that_control_a_terminal_are_escaped_in_the_text(card: ModelCard) -> None:
    text = replace(card, name="a\x1b[2J", notes={"b\x9b": {"c\x07": "d\x1b"}}).to_text()
    assert all(line.isprintable() for line in text.splitlines())


@pytest.mark.parametrize("selection", ["x, so its score is too optimistic", "x, which flatters its score; the y"])
def test_a_training_that_used_the_test_split_says_so(card: ModelCard, selection: str) -> None:
    assert card.training is not None
    assert not card.training.used_test_split
    assert replace(card.training, selection=selection).used_test_split


def test_the_score_in_any_card_but_the_checkpoints_is_that_of_its_checkpoint(card: ModelCard) -> None:
    note = {"right": 8, "images": 64, "dataset": "cifar10, test split", "ran_on": "CPU", "measured_sha256": "b" * 64}
    graph = replace(card, checkpoint_sha256="a" * 64, notes={"parity": note})

    def text(**whose: Any) -> str:
        return " ".join(graph.to_text(**whose).split())

    assert "accuracy 14.06% (9 of 64 images of the test split), loss 2.2500" in text(is_checkpoint=True)
    assert "own accuracy" not in text(is_checkpoint=True)
    for file_sha256 in ("", "c" * 64):
        assert "accuracy of its checkpoint: 14.06% (9 of 64" in text(file_sha256=file_sha256)
        assert "own accuracy not measured on this file" in text(file_sha256=file_sha256)
    own = "own accuracy 12.50% (8 of 64 images of cifar10, test split), on CPU"
    assert own in text(file_sha256="b" * 64)
    assert "accuracy of its checkpoint: 14.06% (9 of 64" in text(file_sha256="b" * 64)
    for damaged in ({"right": "8"}, {"images": 0}, {"measured_sha256": ""}):
        changed = replace(graph, notes={"parity": note | damaged})
        assert changed.own_accuracy(str(changed.notes["parity"]["measured_sha256"])) == ""
    assert replace(graph, notes={"parity": "yes"}).own_accuracy("b" * 64) == ""


def test_the_card_of_an_engine_keeps_what_was_measured_on_its_graph_apart(card: ModelCard) -> None:
    graph = replace(card, notes={"export": {"flavor": "cpu"}, "parity": {"right": 8}})
    assert engine_card(graph).notes == {"export": {"flavor": "cpu"}, "graph_parity": {"right": 8}}
    assert engine_card(card) == card
