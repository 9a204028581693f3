"""Names of networks outside of rtk: `package.module:function`, with arguments as in a call: `mynets:tiny(width=32)`.

Such a name is text like any other architecture: a card holds it, and reading it imports nothing. The values of its
arguments are literals of Python. No torch here.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError

PATH = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
PATTERN = re.compile(rf"({PATH}):({PATH})(?:\((.*)\))?", re.DOTALL)
WORDS = {"true": True, "false": False, "null": None, "none": None}
"""Words that `--net-arg` takes for values, in any case; other text that is no literal is a string."""


@dataclass(frozen=True)
class CodeName:
    """The function that builds a network, and its arguments."""

    module: str
    function: str
    """The name in the module; with dots, as in `Net.small`, that of an attribute."""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The name as it was read, with the arguments in one spelling."""
        listed = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.module}:{self.function}" + (f"({listed})" if listed else "")

    @property
    def short(self) -> str:
        """The name without its module, for names of files."""
        return self.text.partition(":")[2]


def code_name(text: str) -> CodeName | None:
    """Read `package.module:function`, or the same with arguments in brackets; None for any other name.

    Raises UsageError for arguments that are not literals with names.
    """
    match = PATTERN.fullmatch(text)
    if match is None:
        return None
    return CodeName(match[1], match[2], _arguments(match[3] or "", text))


def with_arguments(arch: str, given: Iterable[str]) -> str:
    """The name with these arguments, KEY=VALUE each; they replace those of the same names.

    Raises UsageError for text in another form, and for an architecture of rtk, which has no arguments.
    """
    given = tuple(given)
    if not given:
        return arch
    code = code_name(arch)
    if code is None:
        raise UsageError(f"--net-arg {given[0]}: {arch} takes no arguments; package.module:function does")
    arguments = dict(code.arguments)
    for text in given:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier()):
            raise UsageError(f"--net-arg {text}: expected KEY=VALUE, such as width=32")
        arguments[key] = value_of(value)
    return CodeName(code.module, code.function, arguments).text


def value_of(text: str) -> Any:
    """The value that text stands for: a literal of Python, true, false, null or none, else the text itself."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def members_of(arch: str, separator: str) -> list[str]:
    """Split the name of an ensemble at the separators that are not inside the brackets of arguments."""
    members, depth = [""], 0
    for character in arch:
        depth += (character == "(") - (character == ")")
        if character == separator and not depth:
            members.append("")
        else:
            members[-1] += character
    return members


def _arguments(text: str, name: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or not isinstance(call.func, ast.Name):
            raise ValueError
        return {str(one.arg): ast.literal_eval(one.value) for one in call.keywords if _named(one)}
    except (ValueError, SyntaxError, AssertionError, MemoryError, RecursionError):
        raise UsageError(
            f"architecture {name!r}: expected arguments with names and plain values, such as mynets:tiny(width=32)"
        ) from None


def _named(keyword: ast.keyword) -> bool:
    if keyword.arg is None:  # **something
        raise ValueError
    return True
