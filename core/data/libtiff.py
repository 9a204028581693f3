"""Keep libtiff, which Pillow uses, from printing its own messages: they do not name the file.

What libtiff says about a damaged file, Pillow raises as an error. libtiff prints it too, into the standard error of the
process, past Python. It has a switch for that, in the copy of the library that Pillow has loaded.
"""

import contextlib
import ctypes
import re
from functools import cache
from pathlib import Path

import PIL

HANDLERS = ("TIFFSetErrorHandler", "TIFFSetErrorHandlerExt", "TIFFSetWarningHandler", "TIFFSetWarningHandlerExt")


@cache
def silence_libtiff() -> None:
    """Switch the messages off in this process. Where the library is part of Pillow's own code, nothing happens."""
    for path in _loaded_copies():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for name in HANDLERS:
                function = getattr(library, name)
                function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
                function(None)


def _loaded_copies() -> set[str]:
    """Paths of the libtiff that Pillow has loaded: on Linux as the system lists it, on macOS beside Pillow."""
    with contextlib.suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        return set(re.findall(r"(/\S.*/libtiff[^/]*\.so[^/\n]*)$", maps, re.MULTILINE))
    return {str(path) for path in (Path(PIL.__file__).parent / ".dylibs").glob("libtiff*.dylib")}
