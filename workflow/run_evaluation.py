"""The evaluation that ends a training: RUN/eval has what rtk eval writes of best.pt on the split that is scored."""

import logging
from pathlib import Path

from ..bench.evaluation.file import read_evaluation
from ..core.errors import ArtifactError, RtkError, noted
from ..core.files import sha256_of
from ..core.text import wrapped
from .eval_request import EvalRequest, Wanted
from .evaluation import PAGE, evaluated, write_evaluation, write_images

_log = logging.getLogger(__name__)

FOLDER = "eval"
"""The folder in the run folder."""
PER_IMAGE = "images.csv"


def evaluate_run(best: Path, *, data_dir: Path | None = None, device: str = "auto") -> Path | None:
    """Evaluate the weights of a run that is complete, and return the folder of the evaluation, beside them.

    It is computed by PyTorch, as the score of the training was; a line of the log says if the two differ. An evaluation
    of this very file is kept. What prevents one is logged, and None returned: the training itself is done.
    """
    folder = best.parent / FOLDER
    if _is_of(folder, best):
        return folder
    request = EvalRequest(str(best), Wanted(data_dir=data_dir), backend="torch", device=device)
    try:
        done = evaluated(request)
        write_evaluation(done.evaluation, folder)
        write_images(folder / PER_IMAGE, {"": done})
    except RtkError as error:
        _log.warning(wrapped(f"not evaluated: {noted(error)}; the training is complete; later: {command_for(best)}"))
        return None
    result, score = done.evaluation, done.evaluation.card.score
    if score is not None and (score.correct, score.total) != (result.correct, result.images):
        _log.info(
            wrapped(
                f"evaluation: {result.correct:,} of {result.images:,} right, in the training {score.correct:,} of "
                f"{score.total:,}: other batches are rounded otherwise"
            )
        )
    return folder


def command_for(best: Path) -> str:
    """The command that writes the evaluation of a run."""
    folder = best.parent / FOLDER
    return f"rtk eval {best} --report {folder} --per-image {folder / PER_IMAGE}"


def _is_of(folder: Path, best: Path) -> bool:
    """Whether the folder has the evaluation of this very file."""
    try:
        complete = all((folder / name).is_file() for name in (PAGE, PER_IMAGE))
        return complete and read_evaluation(folder).file.sha256 == sha256_of(best)
    except ArtifactError:
        return False
