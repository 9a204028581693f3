"""The source files of networks outside of rtk, as far as they tell whether what was made of a network is still right.

Only the file of the module itself counts, not what it imports. Nothing is imported here, and no torch.
"""

from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError
from ..files import sha256_of
from .code_names import CodeName, code_name, members_of


def source_sha256s(arch: str) -> dict[str, str]:
    """The SHA-256 of the source file of each network outside of rtk in an architecture, by its name without arguments.

    Networks whose source is not found are left out; so are those of rtk.
    """
    paths = {f"{code.module}:{code.function}": _source(code) for code in codes_in(arch)}
    return {name: sha256_of(path) for name, path in paths.items() if path is not None}


def codes_in(arch: str) -> list[CodeName]:
    """The networks outside of rtk in an architecture, which may be an ensemble; none if it cannot be read."""
    try:
        return [code for member in members_of(arch, "+") if (code := code_name(member)) is not None]
    except UsageError:
        return []


def _source(code: CodeName) -> Path | None:
    top, *rest = code.module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin)
    if rest:
        below = path.parent.joinpath(*rest)
        path = next((one for one in (below.with_suffix(".py"), below / "__init__.py") if one.is_file()), path)
    return path if path.is_file() else None
