"""The temperature in the card: it is kept, old cards have 1, and values that divide nothing are refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rtk.core.card import Input, ModelCard, Resizing, Score, TemperatureFit
from rtk.core.data.images import model_image
from rtk.core.errors import ArtifactError

FIT = TemperatureFit(
    dataset="cifar10",
    split="holdout",
    images=5_000,
    standard_error=0.0213,
    loss_before=0.3125,
    loss_after=0.25,
    ece_before=0.0312,
    ece_after=0.0071,
)


def test_a_temperature_survives_json_with_what_it_was_fitted_on(card: ModelCard) -> None:
    fitted = replace(card, temperature=1.0 / 3, temperature_fit=FIT)
    assert ModelCard.from_json(fitted.to_json(), source="x") == fitted


def test_a_card_of_an_earlier_version_has_the_temperature_1_and_today_s_resizing(card: ModelCard) -> None:
    fields = json.loads(card.to_json())
    for name in ("temperature", "temperature_fit", "resizing"):
        del fields[name]
    for name in ("device", "threads", "machine"):
        del fields["score"][name]
    for name in ("held_out", "trained_images", "device", "threads", "processes"):
        del fields["training"][name]
    read = ModelCard.from_json(json.dumps(fields), source="x")
    assert (read.temperature, read.temperature_fit, read) == (1.0, None, card)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (-1.5, "-1.5"), (None, "nan"), ("NaN", "nan"), ("Infinity", "inf"), ("-Infinity", "-inf")],
)
def test_a_temperature_that_no_logit_can_be_divided_by_is_refused(card: ModelCard, value: object, shown: str) -> None:
    fields = json.loads(card.to_json()) | {"temperature": value}
    expected = f"m.onnx: its card has the temperature {shown}; expected a finite number above 0"
    with pytest.raises(ArtifactError, match=f"^{re.escape(expected)}$"):
        ModelCard.from_json(json.dumps(fields), source="m.onnx")


@pytest.mark.parametrize("value", [True, "warm", [1.0]])
def test_a_temperature_that_is_no_number_is_refused(card: ModelCard, value: object) -> None:
    fields = json.loads(card.to_json()) | {"temperature": value}
    with pytest.raises(ArtifactError, match=r"^m\.onnx: its card is not valid: temperature is"):
        ModelCard.from_json(json.dumps(fields), source="m.onnx")


def test_the_text_shows_a_temperature_and_its_images(card: ModelCard) -> None:
    def text(shown: ModelCard) -> str:
        return " ".join(shown.to_text(is_checkpoint=True).split())

    assert "temperature" not in text(card)
    fitted = replace(card, temperature=1.2345678, temperature_fit=FIT, checkpoint_sha256="a" * 64)
    assert (
        "temperature 1.235, fitted on 5,000 images of cifar10, holdout split (standard error 0.021): loss 0.3125 to "
        "0.2500, calibration error 3.12% to 0.71% "
    ) in text(fitted)
    assert f"checkpoint sha256 before its temperature was fitted {'a' * 64}" in text(fitted)
    optimistic = replace(fitted, temperature_fit=replace(FIT, chose_epoch=True))
    assert "; the training also chose its weights by these images, so this is too optimistic" in text(optimistic)


def test_a_temperature_gives_the_logits_no_other_meaning(card: ModelCard) -> None:
    assert replace(card, temperature=2.0, temperature_fit=FIT).differences_from(card) == ()


def test_the_card_says_what_computed_the_score_and_the_training(card: ModelCard) -> None:
    assert card.training is not None
    training = replace(card.training, device="cpu", threads=2, processes=1)
    score = Score("test", 9, 64, 2.25, device="cpu", threads=1, machine="a machine (2 cores)")
    text = " ".join(replace(card, training=training, score=score).to_text().split())
    assert "measured on a machine (2 cores), cpu, 1 thread " in text
    assert "minutes on a machine, cpu, 2 threads, commit 0123456789ab" in text
    assert replace(training, processes=4).computed_on == ", cpu, 2 threads each, 4 processes"
    assert "measured on" not in card.to_text()
    assert "minutes on a machine, commit 0123456789ab" in " ".join(card.to_text().split())


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        ("crop", "crop: the centre in the input's proportions, 100% of the shorter side, scaled bilinearly"),
        ("letterbox", "letterbox: the whole image, with black bars, scaled bilinearly"),
        ("stretch", "stretch: both sides, scaled bilinearly"),
    ],
)
def test_the_card_states_the_rule_for_images_of_other_sizes(card: ModelCard, fit: str, words: str) -> None:
    text = " ".join(replace(card, fit=fit).to_text().split())
    assert f"other sizes {words}, antialiased " in text


@pytest.mark.parametrize("change", [{"filter": "bicubic"}, {"antialias": False}, {"crop_share": 0.875}])
def test_a_card_with_another_rule_for_images_of_other_sizes_is_refused(
    card: ModelCard, change: dict[str, object]
) -> None:
    fields = json.loads(card.to_json())
    fields["resizing"] |= change
    with pytest.raises(ArtifactError, match=r"^m\.onnx: its card resizes images in another way \(crop: .*use the rtk"):
        ModelCard.from_json(json.dumps(fields), source="m.onnx")


def test_images_are_resized_by_the_rule_of_the_card() -> None:
    """Bilinear with antialiasing: the triangle weighs pixels up to two away, written out; no margin is cut."""
    assert Resizing() == Resizing(filter="bilinear", antialias=True, crop_share=1.0)
    row = np.array([0, 0, 240, 0, 0, 0, 0, 0], np.uint8)
    image_HW = np.repeat(row[None], 8, axis=0)
    small_HWC = model_image(image_HW, Input(4, 4, 1))
    # Pixel 2 has its centre at 2.5. The new pixels 0 and 1 have theirs at 1 and 3 and reach 2 pixels to each side:
    # pixel 2 weighs 0.25 in the first, whose other weights are 0.75 and 0.75, and 0.75 in the second, of 2 in all.
    assert small_HWC[0, 1, 0] == round(240 * 0.75 / 2)
    assert small_HWC[0, 0, 0] == round(240 * 0.25 / (0.75 + 0.75 + 0.25))
    wide_HW = np.zeros((4, 8), np.uint8)
    wide_HW[:, 2:6] = 200
    assert (model_image(wide_HW, Input(4, 4, 1)) == 200).all()  # the centre, all of the shorter side
