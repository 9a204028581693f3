"""Where data and what can be made again are kept."""

import os
from pathlib import Path


def default_data_dir() -> Path:
    """RTK_DATA_DIR, or the user's cache folder."""
    configured = os.environ.get("RTK_DATA_DIR")
    return Path(configured) if configured else cache_dir() / "data"


def cache_dir() -> Path:
    """Where rtk keeps what it can make or fetch again: RTK_CACHE_DIR, or `rtk` in the user's cache folder."""
    configured = os.environ.get("RTK_CACHE_DIR")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtk"
