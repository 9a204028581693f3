"""Fit a model's temperature on images that its training held out, and write it into the model's card."""

import logging
from dataclasses import dataclass
from pathlib import Path

from ..bench.evaluation.answers import answers_of
from ..bench.evaluation.calibration import calibration_of
from ..bench.evaluation.temperature import bounded_temperature, standard_error
from ..core.card import TemperatureFit
from ..core.errors import UsageError
from ..core.text import images_text, wrapped
from ..infer.backend import BackendOptions
from .eval_request import EvalRequest
from .evaluation_data import labelled_images
from .held_out import HeldOut, check_unseen, held_out_of
from .models import find_model, read_card
from .rewrite_card import Temperature, target_of, write_temperature
from .select import open_model

_log = logging.getLogger(__name__)

FEW_IMAGES = 200
"""With fewer images, the standard error of the temperature is a tenth or more."""


@dataclass(frozen=True)
class FitConfig:
    """How a temperature is fitted."""

    request: EvalRequest
    """The model, and the images that judge it afterwards, none of which may be fitted on."""
    held_out: str | None = None
    """Other labelled images than those that the training held out: a data set or a folder."""
    out: Path | None = None
    """The file to write; None: the model's own file."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.request.precision is not None:
            raise UsageError(
                f"--precision {self.request.precision}: a temperature is written into the file of a model, and this "
                "option makes a graph without one; export it, and name the graph: rtk export MODEL --precision "
                f"{self.request.precision}"
            )


@dataclass(frozen=True)
class Fitted:
    """A temperature that was fitted and written."""

    temperature: float
    fit: TemperatureFit
    written: tuple[Path, ...]
    """The file with the temperature, then its exports that got it too."""

    def to_text(self) -> str:
        """The temperature, its images and what it changed on them, in words."""
        return f"temperature {self.temperature:.4g}, fitted on {self.fit.to_text()}"


def fit_temperature(config: FitConfig) -> Fitted:
    """Fit the temperature of a model and write it into its card, and into the cards of its exports beside it.

    Nothing is written before the fit is done. Raises UsageError if no images were held out or the file must not be
    changed, DataError if the images determine no temperature, OutputError, and the errors of opening and running the
    model.
    """
    wanted, found = config.request.wanted, find_model(config.request.model)
    target, card = target_of(found, config.out), read_card(found)
    held_out = held_out_of(card, requested=config.held_out, dataset=wanted.dataset, data_dir=wanted.data_dir)
    check_unseen(held_out, labelled_images(card, wanted).split, card, data_dir=wanted.data_dir)
    temperature = _fitted(config, held_out)
    written = write_temperature(found, target, temperature)
    return Fitted(temperature.value, temperature.fit, tuple(written))


def _fitted(config: FitConfig, held_out: HeldOut) -> Temperature:
    request = config.request
    options = BackendOptions(device=request.device)
    with open_model(request.model, backend=request.backend, options=options, max_batch=request.batch_size) as backend:
        answers = answers_of(backend, held_out.images, batch=request.batch_size)
    logits_NK, labels_N = answers.logits_NK, answers.labels_N
    value = bounded_temperature(logits_NK, labels_N, name=f"{held_out.dataset}, {held_out.split_text}")
    before = calibration_of(logits_NK, labels_N)
    after = calibration_of(logits_NK, labels_N, temperature=value)
    if len(labels_N) < FEW_IMAGES:
        _log.warning(
            wrapped(f"{held_out.dataset}: {images_text(len(labels_N))}; a temperature of so few is hardly reliable")
        )
    if after.ece > before.ece:
        _log.warning(
            wrapped(
                f"{held_out.dataset}: the calibration error rose from {before.ece:.2%} to {after.ece:.2%} on the "
                "images of the fit, although the loss fell: the model was calibrated, or the images are too few"
            )
        )
    fit = TemperatureFit(
        dataset=held_out.dataset,
        split=held_out.split,
        images=len(labels_N),
        standard_error=standard_error(logits_NK, labels_N, temperature=value),
        loss_before=before.loss,
        loss_after=after.loss,
        ece_before=before.ece,
        ece_after=after.ece,
        chose_epoch=held_out.chose_epoch,
    )
    return Temperature(value, fit)
