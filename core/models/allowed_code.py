"""Which modules this process may import to build the networks of checkpoints. No torch here."""

import re

from ..errors import UsageError
from .code_names import PATH

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
