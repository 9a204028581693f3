"""A report for people: as text for the terminal, and as Markdown. html.py makes the page."""

from collections.abc import Collection

from ...core.text import markdown_table, text_table, wrapped
from ..measure.ratio import compares_nothing
from .answer import answer_table
from .not_run import not_run
from .notes import interruption, noise, not_compared, notes_on, preset_lines, wrong_ceilings
from .report import Report
from .tables import BASELINE, Row, compact_tables, parity_table, report_table


def report_text(report: Report, *, verbose: bool = False) -> str:
    """The report for the terminal: the main figures in 80 columns; `verbose` adds all columns, checks and notes."""
    parts = [_header(report)]
    if said := not_compared(report):
        parts.append("\n".join(wrapped(line, first="  ", rest="    ") for line in said))
    if report.parity:
        parts.append(wrapped(f"Parity on {report.dataset}, against {report.reference}", rest=""))
        parts.append(_parity(report, verbose=verbose))
    tables: list[list[Row]] = []
    if report.cells:
        tables = compact_tables(
            report.cells, baseline=BASELINE, share=report.share, devices=report.devices, verbose=verbose
        )
        nothing = compares_nothing(report.cells)
        parts += ["Throughput and latency", *([wrapped(nothing)] if nothing else []), *map(text_table, tables)]
    columns = {name for table in tables for name in table[0]}
    notes = notes_on(report, columns=columns, short_scopes=True) if verbose else _short_notes(report, columns)
    if notes:
        parts.append("\n".join(wrapped(note, first="  ", rest="    ") for note in notes))
    if report.config.preset:
        parts.append("\n".join(wrapped(line, rest="    ") for line in preset_lines(report, short_scopes=True)))
    parts += _not_run(report)
    return "\n\n".join(parts)


def _not_run(report: Report) -> list[str]:
    """What did not run and why, at the end: each cause once."""
    lines = [wrapped(f"{names}: {cause}", first="  ", rest="    ") for names, cause in not_run(report).items()]
    return ["\n".join(["What did not run", *lines])] if lines else []


def _header(report: Report) -> str:
    """The model, the machine, and what ran each backend."""
    lines = [wrapped(f"{report.model.name}, {report.model.precision}, on {report.machine.summary}")]
    lines += [wrapped(f"{names}: {text}", first="  ", rest="    ") for names, text in report.backends.items()]
    return "\n".join(lines)


def _parity(report: Report, *, verbose: bool) -> str:
    """One line per verdict, with all checks where one of them fails; without verdicts the reference's own answers."""
    if report.verdicts:
        texts = (one.to_text() if verbose or not one.passed else one.summary() for one in report.verdicts)
        return "\n".join(texts)
    one = report.parity[0]
    return f"{one.candidate}: {one.candidate_correct:,} of {one.images:,} right; no other backend was compared"


def _short_notes(report: Report, columns: Collection[str]) -> list[str]:
    notes = [*interruption(report), *noise(report.cells), *wrong_ceilings(report)]
    legend = ["x: images/s relative to torch"] if "x" in columns else []
    if any(len(cell.rounds) > 1 for cell in report.cells if cell.valid):
        legend.append("±: 95 % interval")
    if report.cells:
        notes.append("; ".join([*legend, "--verbose prints all columns, checks and notes"]))
    return notes


def report_markdown(report: Report) -> str:
    """The complete report for a README or a paper."""
    model, machine = report.model, report.machine
    lines = [f"Model: {model.name}, {model.precision}. Machine: {machine.summary}. {report.date}.", ""]
    lines += [f"**{line}**\n" for line in not_compared(report)]
    if answers := answer_table(report):
        lines += [markdown_table(answers), ""]
    lines += [f"- {names}: {text}" for names, text in report.backends.items()]
    if report.cells:
        lines += ["", "Throughput and latency.", ""]
        nothing = compares_nothing(report.cells)
        lines += [f"**{nothing}**", ""] if nothing else []
        lines += [markdown_table(report_table(report)), ""]
        lines += [f"- {note}" for note in notes_on(report)]
    elif report.interrupted:
        lines += ["", *interruption(report)]
    if report.config.preset:
        lines += ["", *preset_lines(report)]
    if report.parity:
        heading = f"Parity on {report.dataset}, against {report.reference}."
        lines += ["", heading, "", markdown_table(parity_table(report.parity))]
    lines += [f"\n```\n{verdict.to_text()}\n```" for verdict in report.verdicts]
    if causes := not_run(report):
        lines += ["", "What did not run.", "", *(f"- {names}: {cause}" for names, cause in causes.items())]
    return "\n".join(lines) + "\n"
