"""The earlier spellings `rtk bench --train ARCH` and `rtk bench --files`: they run the commands that replaced them."""

import logging
from collections.abc import Sequence
from typing import Any

from ..core.errors import UsageError
from .help import GroupedCommand

_log = logging.getLogger(__name__)

COMMANDS = {"--train": "bench-train", "--files": "bench-files"}
"""Each form's option, and the command that replaced the form."""
MOVED = {"--keras": "bench-train", "--images": "bench-files", "--memory": "bench-files"}
"""Options of `rtk bench` that only these forms had."""


class BenchCommand(GroupedCommand):
    """`rtk bench`; its command line in an earlier form becomes that of the new command."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the words after `rtk bench`. Called by Click."""
        names = [word.partition("=")[0] for word in args]
        forms = [name for name in COMMANDS if name in names]
        if len(forms) > 1:
            raise UsageError(f"{' and '.join(forms)}: choose one: rtk bench-train ARCH or rtk bench-files")
        form = forms[0] if forms else None
        if form is None:
            moved = next((name for name in MOVED if name in names), None)
            if moved:
                raise UsageError(f"{moved} is an option of: rtk {MOVED[moved]}")
            return super().make_context(info_name, args, parent, **extra)
        command = parent.command.get_command(parent, COMMANDS[form])
        words = _without_form(form, args)
        _refuse_unused(form, words, own=_options(self), new=_options(command))
        arch = " ARCH" if form == "--train" else ""
        _log.warning(f"`rtk bench {form}` is an old spelling; use: rtk {COMMANDS[form]}{arch}")
        return command.make_context(COMMANDS[form], words, parent, **extra)


def _options(command: Any) -> frozenset[str]:
    """The names of a command's options."""
    return frozenset(name for one in command.params for name in (*one.opts, *one.secondary_opts))


def _without_form(form: str, args: Sequence[str]) -> list[str]:
    """The words of the new command: without --files, and with the architecture of --train as an argument."""
    if form == "--files":
        return [word for word in args if word != form]
    position = next(index for index, word in enumerate(args) if word.partition("=")[0] == form)
    arch = args[position].partition("=")[2]
    rest = list(args[position + 1 :])
    if not arch and not rest:
        raise UsageError("--train: the architecture is missing; run: rtk bench-train ARCH")
    return [arch or rest.pop(0), *args[:position], *rest]


def _refuse_unused(form: str, words: Sequence[str], *, own: frozenset[str], new: frozenset[str]) -> None:
    """Raise UsageError for options of `rtk bench` that have no effect in this form."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    unused = [name for name in names if name not in new and name in own | set(MOVED)]
    if unused:
        raise UsageError(f"{form}: leave out {', '.join(unused)}, which would have no effect")
