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


def without_home(text: str) -> str:
    """The text with ~ for the user's home folder: what is shown to others need not say whose files these were."""
    home = Path.home()
    return text.replace(f"{home}/", "~/") if home.name else text
