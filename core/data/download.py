"""Downloads, checked and written whole or not at all."""

import hashlib
import sys
from importlib.util import find_spec
from pathlib import Path

from ..errors import RtkError
from ..files import make_folder, whole_file
from ..text import one_line


def download(url: str, target: Path, *, checksum: str, error: type[RtkError], otherwise: str) -> None:
    """Fetch a file, with a progress bar where tqdm is there to draw it.

    `checksum`: ALGORITHM:HEXADECIMAL; of the digits as many count as are given. Raises `error`, which says what went
    wrong, where to put the file by hand, and what to do `otherwise`; OutputError when it cannot be written.
    """
    import pooch  # only here: nothing else needs it
    import requests

    make_folder(target.parent)
    pooch.get_logger().info("Downloading '%s' to '%s'.", url, target)
    bar = sys.stderr.isatty() and find_spec("tqdm") is not None
    algorithm, digits = checksum.split(":")
    with whole_file(target) as file:
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
                f"{target}: missing, and the download failed ({reason}); fetch {url} and put it there, or {otherwise}"
            ) from failure
