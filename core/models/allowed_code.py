"""Which modules this process may import to build the networks of checkpoints. No torch here."""

import re

from ..errors import ArtifactError, UsageError
from .code_names import PATH, CodeName

_allowed = set[str]()


def allow_code(*modules: str) -> None:
    """Allow importing these modules and all below them to build networks, in this process. Raises UsageError."""
    for module in modules:
        if not re.fullmatch(PATH, module):
            raise UsageError(f"--allow-code {module}: expected the name of a module, such as package.module")
    _allowed.update(modules)


def is_allowed(module: str) -> bool:
    """Whether the module, or a package that it is in, was allowed."""
    parts = module.split(".")
    return any(".".join(parts[:count]) in _allowed for count in range(1, len(parts) + 1))


def check_allowed(code: CodeName) -> None:
    """Raises ArtifactError, which says how to allow it, if the module of this function was not allowed."""
    if not is_allowed(code.module):
        raise ArtifactError(
            f"{code.text}: a network that is built by code outside of rtk, which wants to import {code.module}; if you "
            f"trust it, add --allow-code {code.module} (in Python: allow_code={code.module!r})"
        )
