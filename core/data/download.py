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


def check_download(path: Path, *, checksum: str, error: type[RtkError]) -> None:
    """Raise `error` if a file that was downloaded earlier is not what its checksum says."""
    problem = download_problem(path, checksum=checksum)
    if problem:
        raise error(f"{path}: {problem}")


def download_problem(path: Path, *, checksum: str) -> str:
    """The reason why a downloaded file cannot be used; empty if it fits the checksum, given as for `download`."""
    algorithm, digits = checksum.split(":")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as failure:
        return f"cannot be read: {failure.strerror}"
    if found.startswith(digits):
        return ""
    return f"altered or truncated: its {algorithm} is {found}; remove it to download it again"


def _fetch(url: str, file: IO[bytes], *, checksum: str, target: Path, error: type[RtkError], otherwise: str) -> None:
    """Download into the open file and check it. Raises `error`."""
    import pooch  # only this function needs it
    import requests

    pooch.get_logger().info("Downloading '%s' to '%s'.", url, target)
    bar = sys.stderr.isatty() and find_spec("tqdm") is not None
    try:
        pooch.HTTPDownloader(progressbar=bar)(url, file, None)
        file.flush()
        if download_problem(Path(file.name), checksum=checksum):
            raise ValueError("the checksum does not match")
    except (OSError, ValueError) as failure:  # requests' errors are OSErrors
        offline = isinstance(failure, requests.ConnectionError | requests.Timeout)
        reason = "no connection" if offline else one_line(failure)
        raise error(
            f"{target}: missing, and the download failed ({reason}); download {url} and put it there, or {otherwise}"
        ) from failure
