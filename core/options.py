"""Fields of a dataclass that are command line options too, so that names, defaults and help texts are written once.

cli/config_options.py builds the options of a command from such fields.
"""

from dataclasses import field
from typing import Any


def option(
    default: Any,
    *,
    group: str,
    help: str,  # noqa: A002 - as Typer calls it
    names: tuple[str, ...] = (),
    metavar: str | None = None,
    envvar: str | None = None,
    minimum: int | None = None,
) -> Any:
    """Declare a field that is also an option, listed under the heading `group` of the command's help.

    `names`: spellings of the option, by default that of the field. `metavar`: placeholder for the value. `envvar`:
    environment variable that is read when the option is not given. `minimum`: the smallest number that is accepted.
    """
    metadata = {
        "group": group,
        "help": help,
        "names": names,
        "metavar": metavar,
        "envvar": envvar,
        "minimum": minimum,
    }
    return field(default=default, metadata=metadata)
