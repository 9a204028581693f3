"""Packages that can be called, because a function has the same name: `rtk.train(...)` and `rtk.train.config`.

Importing a part of a package sets the package's name in its parent. A function of that name would be there only until
then. So the package itself is what is called: it stays the same object, in whatever order things are imported.
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that passes calls to the function of its name in the API, which is imported then."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _function_of(self)(*arguments, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function_of(self))

    @property
    def __doc__(self) -> str:  # type: ignore[override] # what help() and editors show
        function = _function_of(self)
        return f"{self.__name__}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)


def make_callable(package: ModuleType) -> None:
    """Let calls of this package go to the function of its name in the API."""
    package.__class__ = CallablePackage


def _function_of(package: ModuleType) -> Callable[..., Any]:
    parent, _, name = package.__name__.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(f"{parent}.api"), name)
    return function
