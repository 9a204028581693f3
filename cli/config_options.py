"""Command line options from the fields of a dataclass, so that names, defaults and help texts are written once.

A field that core/options.option declares is an option.
"""

import dataclasses
import inspect
from collections.abc import Callable
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

Command = TypeVar("Command", bound=Callable[..., None])


def options_from(config: Any) -> Callable[[Command], Command]:
    """A decorator that replaces a command's `**values` by one option for each field of the dataclass `config`.

    The options are listed between the command's positional and its keyword-only parameters. Fields without metadata are
    left out: the command has a parameter of its own for them.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        first = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        types = get_type_hints(config)
        options = [_option(field, types[field.name]) for field in dataclasses.fields(config) if field.metadata]
        command.__signature__ = signature.replace(  # type: ignore[attr-defined] # this is what Typer reads
            parameters=[*first, *options, *own[len(first) :]]
        )
        return command

    return decorate


def _option(field: "dataclasses.Field[Any]", kind: Any) -> inspect.Parameter:
    """The parameter that Typer turns into the option of this field. A flag without None has no --no- form."""
    declared = field.metadata["names"] or ([f"--{field.name.replace('_', '-')}"] if kind is bool else [])
    info = typer.Option(
        *declared,
        help=field.metadata["help"],
        rich_help_panel=field.metadata["group"],
        metavar=field.metadata["metavar"],
        envvar=field.metadata["envvar"],
        min=field.metadata["minimum"],
        show_default=field.default is not None,
    )
    annotated: Any = Annotated
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=annotated[_repeatable(kind), info],
    )


def _repeatable(kind: Any) -> Any:
    """The type itself, but a list for a tuple or None: Typer repeats options that are lists."""
    inner = [one for one in get_args(kind) if one is not NoneType]
    if len(inner) == 1 and get_origin(inner[0]) is tuple:
        generic: Any = list
        return generic[get_args(inner[0])[0]] | None
    return kind
