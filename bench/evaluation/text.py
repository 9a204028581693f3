"""An evaluation, or a comparison, as text for the terminal, in 80 columns."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...core.text import images_text, outline, terminal_width, text_table, visible, wrapped
from .result import ClassChange, ClassFigures, Comparison, Evaluation, LabelledData, Outcome

MOST_CLASSES = 20
"""Classes that are all listed; of more, only the worst."""
WORST_CLASSES = 10
NAME_WIDTH = 24
"""Columns for the name of a class or of a model in a table."""
FILE_WIDTH = 26
"""Columns for the name of a file; of a longer one, its end is shown."""
SHORT_NAME = 8
"""Columns that a name needs in the confusion matrix, unless it is shorter."""
PERCENT_WIDTH = 3
"""Columns of a cell in per cent: where one is 100, the others of its row are `.`."""
OUTCOMES: tuple[Outcome, ...] = ("lost", "won", "both wrong")
IMAGES = 5
"""Images in a list."""
UNDEFINED = "-"


def evaluation_text(result: Evaluation) -> str:
    """The result for people: a summary, the classes, the confusion matrix, the confused pairs and the worst images."""
    parts = [f"{_heading(result)}\n{outline(_summary(result))}", _classes(result)]
    if matrix := confusion_text(result):
        parts.append(f"Confusion matrix: a row for each label, a column for each prediction\n\n{matrix}")
    if result.pairs:
        parts.append(f"Most confused pairs\n\n{text_table(_pairs(result))}")
    if result.surest_wrong:
        parts.append(f"Surest wrong answers\n\n{text_table(_wrong(result))}")
    if result.least_sure_right:
        parts.append(f"Least sure right answers\n\n{text_table(_right(result))}")
    return "\n\n".join(parts)


def comparison_text(result: Comparison) -> str:
    """What changed from the first to the second model, for people."""
    one = result.first
    parts = [
        f"{wrapped(f'Two models on {one.machine.summary}')}\n{outline(_compared(result))}",
        text_table(_scores(result)),
    ]
    if not result.changed_images:
        parts.append(wrapped(f"no answer changed: B answers all {images_text(result.images)} as A does", rest=""))
        return "\n\n".join(parts)
    changes = [one for one in result.classes if one.lost or one.won]
    heading = "Classes that changed"
    if len(changes) > MOST_CLASSES:
        heading = f"Classes that changed most, {WORST_CLASSES} of {len(changes):,}; --report has all"
        changes = sorted(changes, key=lambda one: (-abs(one.won - one.lost), -one.lost))[:WORST_CLASSES]
    if changes:
        parts.append(f"{heading}\n\n{text_table([_changed_class(one) for one in changes])}")
    shown = [
        image for outcome in OUTCOMES for image in [one for one in result.changed if one.outcome == outcome][:IMAGES]
    ]
    images = [
        {
            "image": _image_name(image.index, image.name),
            "label": _class(one, image.label, 12),
            "A": _class(one, image.first, 12),
            "B": _class(one, image.second, 12),
            "change": image.outcome,
        }
        for image in shown
    ]
    count = f"{len(shown):,} of {result.changed_images:,}" if len(shown) < result.changed_images else "all"
    parts.append(f"Changed answers: {count}\n\n{text_table(images)}")
    return "\n\n".join(parts)


def model_names(result: Comparison) -> tuple[str, str]:
    """What to call two models: by name and precision; where these are the same, also as the user named them."""
    forms: tuple[Callable[[Evaluation], str], ...] = (
        lambda one: f"{one.card.name}, {one.precision}",
        lambda one: f"{one.card.name}, {one.precision}, {one.backend}",
        lambda one: f"{one.card.name}, {one.precision} ({visible(one.given)})",
        lambda one: f"{one.card.name}, {one.precision} ({one.file.sha256[:12]})",
    )
    for form in forms:
        first, second = form(result.first), form(result.second)
        if first != second:
            break
    return first, second


def data_text(data: LabelledData) -> str:
    """The images in words."""
    which = "all images" if data.split == "all" else f"{data.split} split"
    text = f"{visible(data.name)}, {which}: {images_text(data.images)}"
    if data.layout:
        text += f" ({data.layout}; fingerprint {data.fingerprint[:12]})"
    if data.unreadable:
        text += f"; {data.unreadable:,} unreadable, left out"
    return f"{text}. {data.note}" if data.note else text


def percent(share: float | None, digits: int = 2) -> str:
    """A share as a percentage; UNDEFINED for None."""
    return UNDEFINED if share is None else f"{100 * share:.{digits}f}%"


def calibration_text(result: Evaluation) -> str:
    """ECE and mean confidence in words, before and after the card's temperature if it has one."""
    found = result.calibration
    more = found.confidence - result.accuracy
    how = "over" if more > 0 else "under"
    text = f"ECE {percent(found.ece)} ({len(found.bins)} bins), mean confidence {percent(found.confidence)}"
    text += f": {100 * abs(more):.2f} points {how} the accuracy"
    if result.uncalibrated:
        before = result.uncalibrated
        text += (
            f"; with temperature {found.temperature:.4g}. Without it: ECE {percent(before.ece)}, loss {before.loss:.4f}"
        )
    return text


def confusion_text(result: Evaluation) -> str:
    """The confusion matrix for up to MOST_CLASSES classes; empty for more, or for a narrow terminal.

    Counts, or where these are too wide, whole per cent of each row; `.` is none.
    """
    classes = len(result.classes)
    number_width = len(str(classes - 1))
    names = [visible(one.name) for one in result.classes]
    longest = max(map(len, names))
    count_width = 1 + max(number_width, len(str(max(map(max, result.confusion)))))

    def room(cell_width: int) -> int:
        return terminal_width() - classes * cell_width - number_width - 2

    in_percent = room(count_width) < min(longest, SHORT_NAME)
    cell_width = PERCENT_WIDTH if in_percent else count_width
    if classes > MOST_CLASSES or room(cell_width) < min(longest, SHORT_NAME):
        return ""
    width = min(longest, room(cell_width))
    lines = [" " * (width + number_width + 1 + in_percent) + "".join(f"{k:>{cell_width}}" for k in range(classes))]
    for k, (one, row) in enumerate(zip(result.classes, result.confusion, strict=True)):
        shown = [f"{100 * count / one.support:.0f}" if in_percent and count else f"{count}" for count in row]
        cells = ("." if not count else cell for count, cell in zip(row, shown, strict=True))
        lines.append(
            f"{_short(one.name, width):<{width}} {k:>{number_width}}{' ' * in_percent}"
            + "".join(f"{cell:>{cell_width}}" for cell in cells)
        )
    if in_percent:
        lines.append("in % of the images of each label; 0: fewer than 0.5 %; . none")
    return "\n".join(lines)


def _heading(result: Evaluation) -> str:
    return wrapped(f"{result.card.name}, {result.precision}, on {result.machine.summary}")


def _summary(result: Evaluation) -> dict[str, str]:
    interval = result.accuracy_interval
    facts = {"model": visible(result.given)} if result.given else {}
    facts |= {
        "backend": f"{result.backend}: {result.runs_on}",
        "file": str(result.file),
        "images": data_text(result.data),
        "measured": _measured(result),
        "accuracy": f"{percent(result.accuracy)} ({result.correct:,} of {result.images:,}), 95% interval "
        f"{percent(interval.low)} to {percent(interval.high)}",
    }
    if result.top5_correct is not None:
        facts["top 5"] = f"{percent(result.top5_correct / result.images)} ({result.top5_correct:,})"
    facts["loss"] = f"{result.loss:.4f}"
    for name, one in (("macro", result.macro), ("weighted", result.weighted)):
        facts[name] = f"precision {percent(one.precision)}, recall {percent(one.recall)}, F1 {percent(one.f1)}"
    facts["calibration"] = calibration_text(result)
    return facts


def _classes(result: Evaluation) -> str:
    """The classes in their order; of many, those with the lowest F1."""
    classes: Sequence[ClassFigures] = result.classes
    heading = "Classes"
    if len(classes) > MOST_CLASSES:
        found = sorted(
            (one for one in classes if one.support), key=lambda one: (1.0 if one.f1 is None else one.f1, one.name)
        )
        classes = found[:WORST_CLASSES]
        heading = f"The {len(classes)} classes with the lowest F1, of {len(result.classes):,}; --report has all"
    rows = [
        {
            "class": _short(one.name),
            "precision": percent(one.precision),
            "recall": percent(one.recall),
            "F1": percent(one.f1),
            "support": one.support,
        }
        for one in classes
    ]
    text = f"{heading}\n\n{text_table(rows)}"
    if any(UNDEFINED in (row["precision"], row["recall"], row["F1"]) for row in rows):
        text += f"\n{UNDEFINED}: undefined, because there is no prediction, or no image, of the class"
    return text


def _pairs(result: Evaluation) -> list[dict[str, object]]:
    return [
        {
            "label": _class(result, pair.label),
            "predicted": _class(result, pair.prediction),
            "images": pair.images,
            "of the label": percent(pair.images / result.classes[pair.label].support, 1),
        }
        for pair in result.pairs
    ]


def _wrong(result: Evaluation) -> list[dict[str, object]]:
    return [
        {
            "image": _image_name(one.index, one.name),
            "label": _class(result, one.label),
            "predicted": _class(result, one.prediction),
            "confidence": percent(one.confidence),
            "label's": percent(one.label_probability),
        }
        for one in result.surest_wrong[:IMAGES]
    ]


def _right(result: Evaluation) -> list[dict[str, object]]:
    return [
        {
            "image": _image_name(one.index, one.name),
            "label": _class(result, one.label),
            "confidence": percent(one.confidence),
        }
        for one in result.least_sure_right[:IMAGES]
    ]


def _scores(result: Comparison) -> list[dict[str, object]]:
    return [
        {
            "model": key,
            "accuracy": percent(one.accuracy),
            "right": one.correct,
            "loss": f"{one.loss:.4f}",
            "ECE": percent(one.calibration.ece),
            "macro F1": percent(one.macro.f1),
        }
        for key, one in _models(result).items()
    ]


def _compared(result: Comparison) -> dict[str, str]:
    models, points, first = _models(result), result.difference, result.first
    facts = {
        key: f"{name}: {one.file}, {one.backend}: {one.runs_on}"
        for (key, one), name in zip(models.items(), model_names(result), strict=True)
    }
    facts["images"] = data_text(replace(first.data, note=""))
    facts |= {f"note on {key}": one.data.note for key, one in models.items() if one.data.note}
    facts["measured"] = _measured(first)
    facts["B minus A"] = (
        f"{100 * result.accuracy_change:+.2f} points, 95% interval {100 * points.low:+.3f} to {100 * points.high:+.3f}"
    )
    if result.changed_images:
        facts["changed"] = (
            f"{result.changed_images:,} answers: {result.lost:,} lost (only A is right), {result.won:,} won (only B "
            f"is right), {result.both_wrong_changed:,} with two wrong answers"
        )
    return facts


def _models(result: Comparison) -> dict[str, Evaluation]:
    return {"A": result.first, "B": result.second}


def _measured(result: Evaluation) -> str:
    return result.date + (f", rtk {result.machine.commit}" if result.machine.commit else "")


def _changed_class(change: ClassChange) -> dict[str, object]:
    return {
        "class": _short(change.name),
        "images": change.support,
        "A right": change.first_right,
        "B right": change.second_right,
        "lost": change.lost,
        "won": change.won,
    }


def _class(result: Evaluation, index: int, width: int = 14) -> str:
    return _short(result.classes[index].name, width)


def _short(name: str, width: int = NAME_WIDTH) -> str:
    shown = visible(name)
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def _image_name(index: int, name: str) -> str:
    shown = visible(name)
    if not shown:
        return f"{index:,}"
    return shown if len(shown) <= FILE_WIDTH else f"…{shown[1 - FILE_WIDTH :]}"
