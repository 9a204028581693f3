"""A user whom the system does not know, without a home folder: what `docker run -u 12345` gives."""

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

NAMES = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
FOLDERS = ("RTK_CACHE_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "RTK_DATA_DIR")
UNKNOWN_USER = """
import pwd, sys
def nobody(user): raise KeyError(f"getpwuid(): uid not found: {user}")
pwd.getpwuid = nobody
"""


def be_homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process belong to such a user."""

    def nobody(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in (*NAMES, *FOLDERS):
        monkeypatch.delenv(name, raising=False)


def run_homeless(
    code: str, *, temporary: Path, words: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python code as such a user in a new process, with these arguments and further environment variables.

    `temporary`: the folder for temporary files.
    """
    kept = {name: value for name, value in os.environ.items() if name not in (*NAMES, *FOLDERS)}
    environment = {**kept, "TMPDIR": str(temporary), **variables}
    command = [sys.executable, "-c", UNKNOWN_USER + code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=temporary)


def rtk_homeless(*words: str, temporary: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of rtk as such a user."""
    code = "from rtk.cli.app import main\nmain()"
    return run_homeless(code, temporary=temporary, words=words, **variables)
