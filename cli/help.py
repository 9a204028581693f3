"""How `--help` looks: options in groups, as wide as the terminal. Nothing heavy is loaded for it.

An option's group is its `rich_help_panel`, which Typer keeps whether or not rich draws the help. Options without
one are listed last.
"""

import re
from typing import Any

from typer.core import TyperCommand

from ..core.text import WIDEST

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}
"""The context settings of every command."""

# The groups, as users read them.
DATA = "Data"
RECIPE = "Recipe"
AUGMENTATION = "Augmentation"
MODEL = "Model"
BACKEND = "Backend"
MEASUREMENT = "Measurement"
PARITY = "Parity"
PRECISION = "Precision"
TEMPERATURE = "Temperature"
TENSORRT = "TensorRT"
MACHINE = "Machine"
OUTPUT = "Output"
RESUMING = "Stopping and resuming"


PLACEHOLDERS = {"str": "TEXT", "int": "INTEGER", "int range": "INTEGER", "float": "NUMBER", "path": "PATH"}
"""What help shows for a value, by the Python type that Typer shows."""


class GroupedCommand(TyperCommand):
    """A command whose options are listed under the names of their groups, in the order of their first options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line. Called by Click."""
        first, *arguments = super().collect_usage_pieces(ctx)
        return [first, *map(_argument, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then each group of options. Called by Click."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                names, text = record
                record = (_argument(names.partition(" <")[0]) if is_argument else _placeholder(names), text)
                named = getattr(parameter, "rich_help_panel", None)
                default = "Arguments" if is_argument else "Options"
                groups.setdefault(named or default, []).append(record)
        general = groups.pop("Options")
        for name, records in [*groups.items(), ("Options" if len(groups) == 1 else "General", general)]:
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


def _argument(text: str) -> str:
    """An argument as help shows it: `PATHS...` for Typer's `{paths}...`, `[ARCH]` for `[arch]`."""
    return re.sub(r"\{(.*?)(\.\.\.)?\}", r"\1", text).upper()


def _placeholder(names: str) -> str:
    """The names of an option and the placeholder of its value: `--lr NUMBER` for Typer's `--lr <float>`."""
    return re.sub(r"<(?:list\[)?([\w ]+?)\]?>", lambda found: PLACEHOLDERS.get(found[1], found[0]), names)
