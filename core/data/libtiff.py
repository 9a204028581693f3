"""Keep libtiff, which Pillow uses, from printing its own messages: they do not name the file.

What libtiff says about a damaged file, Pillow raises as an error. libtiff prints it too, into the standard error of the
process, past Python. It has a switch for that, in the copy of the library that Pillow has loaded.
"""

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import PIL

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt")


@contextlib.contextmanager
def silent_libtiff() -> Iterator[None]:
    """Switch the messages off inside the block. Where the library is part of Pillow's own code, nothing happens."""
    setters = _setters()
    before = [setter(None) for setter in setters]
    try:
        yield
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)


@cache
def _setters() -> list[Callable[[int | None], int | None]]:
    """Functions that set a handler of messages, and return the one before."""
    setters: list[Callable[[int | None], int | None]] = []
    for path in _loaded_copies():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for name in HANDLERS:
                function = getattr(library, name)
                function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
                setters.append(function)
    return setters


def _loaded_copies() -> set[str]:
    """Paths of the libtiff that Pillow has loaded: on Linux as the system lists it, on macOS beside Pillow."""
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        return set(re.findall(r"(/\S.*/libtiff[^/]*\.so[^/\n]*)$", maps, re.MULTILINE))
    return {str(path) for path in (Path(PIL.__file__).parent / ".dylibs").glob("libtiff*.dylib")}
