"""Downloads, verified and written whole or not at all."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from ..errors import OutputError, RtkError
from ..files import made_by_one, whole_file
from ..text import one_line


def download(url: str, target: Path, *, checksum: str, error: type[RtkError], otherwise: str) -> None:
    """Download a file, once however many processes ask for it; tqdm, if it is installed, shows a progress bar.

    `checksum`: ALGORITHM:HEXADECIMAL; only the given digits, from the first, are compared. Raises `error` when the
    download fails; its message names the reason, the place for a file that is downloaded by hand, and the alternative
    `otherwise`. Raises OutputError, with that alternative, when the file cannot be written.
    """
    try:
        with made_by_one(target):
            if not target.is_file():  # else another process has just downloaded it
                with whole_file(target) as file:
                    _fetch(url, file, checksum=checksum, target=target, error=error, otherwise=otherwise)
    except OutputError as problem:
        raise OutputError(f"{problem}; {otherwise}") from problem


def _fetch(url: str, file: IO[bytes], *, checksum: str, target: Path, error: type[RtkError], otherwise: str) -> None:
    """Download into the open file and check it. Raises `error`."""
    import pooch  # only this function needs it
    import requests

    pooch.get_logger().info("Downloading '%s' to '%s'.", url, target)
    bar = sys.stderr.isatty() and find_spec("tqdm") is not None
    algorithm, digits = checksum.split(":")
    try:
        pooch.HTTPDownloader(progressbar=bar)(url, file, None)
        file.flush()
        with Path(file.name).open("rb") as content:
            if not hashlib.file_digest(content, algorithm).hexdigest().startswith(digits):
                raise ValueError("the checksum does not match")
    except (OSError, ValueError) as failure:  # requests' errors are OSErrors
        offline = isinstance(failure, requests.ConnectionError | requests.Timeout)
        reason = "no connection" if offline else one_line(failure)
        raise error(
            f"{target}: missing, and the download failed ({reason}); download {url} and put it there, or {otherwise}"
        ) from failure
