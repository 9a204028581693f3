"""URLs that are given where a path is expected: rtk reads and writes files of this machine only."""

import re
import shlex
import urllib.parse
import urllib.request

URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)", re.IGNORECASE | re.DOTALL)
"""A scheme has two letters at least, so that C:/ is a path. Path turns // into /."""
DOWNLOADED = ("http", "https", "ftp")


def url_problem(name: str) -> str:
    """Why a URL is no path, and what to do; empty for everything else. A file of that name is not looked for."""
    found = URL.fullmatch(name)
    if found is None:
        return ""
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        return f"a URL, expected a path: {urllib.request.url2pathname(urllib.parse.urlsplit(f'file:///{rest}').path)}"
    if scheme in DOWNLOADED:
        return f"a URL, expected a path; download it first: curl -LO {shlex.quote(f'{scheme}://{rest}')}"
    return f"a URL of {scheme}, expected a path; copy it to this machine, or mount it, and give its path here"
