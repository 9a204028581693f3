"""Folders for data and for files that can be made again."""

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Return RTK_DATA_DIR, or `data` in the cache folder."""
    configured = os.environ.get("RTK_DATA_DIR")
    return Path(configured) if configured else cache_dir() / "data"


def cache_dir() -> Path:
    """Return the folder for files that can be made or downloaded again: RTK_CACHE_DIR, or `rtk` in the user's cache."""
    configured = os.environ.get("RTK_CACHE_DIR")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtk"


def without_home(text: str) -> str:
    """Replace the user's home folder by ~, so that published text does not show a user name."""
    home = Path.home()
    return text.replace(f"{home}/", "~/") if home.name else text
