"""An evaluation, or a comparison of two, as one HTML page: no script, no network, readable on a phone.

It begins with the answer; what it was measured on comes last.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...core.svg_plot import svg_of
from ...core.text import images_text
from ...core.web_page import (
    details_html,
    escaped,
    facts_html,
    figure_html,
    picture_grid,
    picture_html,
    swatches_html,
    table_html,
    web_page,
)
from .plots import (
    MOST_BARS,
    PRECISION,
    RECALL,
    RIGHT,
    WITH_TEMPERATURE,
    WITHOUT,
    WRONG,
    Picture,
    class_bars,
    classes_per_cell,
    confusion,
    opacity,
    reliability,
    worst_first,
)
from .result import ChangedImage, Comparison, Evaluation, Outcome, ShownImage
from .text import calibration_text, data_text, model_names, percent

MOST_ROWS = 20
"""Classes that are listed at once; a click shows all of more."""
OUTCOMES: dict[Outcome, str] = {
    "lost": "Lost: only A is right",
    "won": "Won: only B is right",
    "both wrong": "Wrong in both, with two different answers",
}


def page_of(result: Evaluation) -> str:
    """The page of an evaluation as text."""
    title = f"{result.card.name}, {result.precision}"
    data = "all images" if result.data.split == "all" else f"the {result.data.split} split"
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f"<p class=faint>{escaped(f'{data} of {result.data.name}; {result.machine.summary}; {result.date}')}</p>",
        f"<p class=answer>{_accuracy(result)}</p>",
        facts_html(_summary(result)),
        _pairs(result),
        _confusion(result),
        _classes(result),
        _calibration(result),
        _gallery("Surest wrong answers", result, result.surest_wrong, none="No answer is wrong."),
        _gallery("Least sure right answers", result, result.least_sure_right, none="No answer is right."),
        "<h2>What it was measured on</h2>",
        facts_html(_measured(result)),
    ]
    return web_page(title, "".join(parts))


def comparison_page_of(result: Comparison) -> str:
    """The page of a comparison as text."""
    first, second = model_names(result)
    title, points = f"{first}, and {second}", result.difference
    parts = [
        f"<h1>A: {escaped(first)}<br>B: {escaped(second)}</h1>",
        f"<p class=faint>{escaped(f'{data_text(replace(result.first.data, note=str()))}; {result.first.date}')}</p>",
        f"<p class=answer><b>{100 * result.accuracy_change:+.2f} points</b> of accuracy from A to B "
        f"(95 % interval {100 * points.low:+.3f} to {100 * points.high:+.3f})</p>",
        table_html(_scores(result)),
        *_changes(result),
        "<h2>What they were measured on</h2>",
        *(f"<h3>{key}</h3>{facts_html(_measured(one))}" for key, one in (("A", result.first), ("B", result.second))),
    ]
    return web_page(title, "".join(parts))


def _accuracy(result: Evaluation) -> str:
    interval = result.accuracy_interval
    return (
        f"<b>{percent(result.accuracy)}</b> right ({result.correct:,} of {images_text(result.images)}; 95 % interval "
        f"{percent(interval.low)} to {percent(interval.high)})"
    )


def _summary(result: Evaluation) -> dict[str, str]:
    facts = {}
    if result.top5_correct is not None:
        facts["top 5"] = f"{percent(result.top5_correct / result.images)} ({result.top5_correct:,})"
    facts["calibration"] = calibration_text(result)
    facts["loss"] = f"{result.loss:.4f} nats per image"
    for name, one in (("macro", result.macro), ("weighted", result.weighted)):
        facts[name] = f"precision {percent(one.precision)}, recall {percent(one.recall)}, F1 {percent(one.f1)}"
    facts["images"] = data_text(result.data)
    return facts


def _measured(result: Evaluation) -> dict[str, str]:
    machine = result.machine
    facts = {
        "model": f"{result.card.name}, {result.card.arch}, {len(result.classes):,} classes",
        **({"given as": result.given} if result.given else {}),
        "file": str(result.file),
        "backend": f"{result.backend}: {result.runs_on}",
        "device": result.device,
        "images": data_text(result.data),
        "machine": machine.summary,
        "date": result.date,
        "libraries": ", ".join(
            [f"Python {machine.python}", *(f"{name} {version}" for name, version in machine.libraries.items())]
        ),
    }
    if result.data.fingerprint:
        facts["fingerprint of the images"] = result.data.fingerprint
    return facts | ({"commit": machine.commit} if machine.commit else {})


def _svg(picture: Picture) -> str:
    return svg_of(picture.draw, size_inches=picture.size_inches, names=picture.names, grid=False)


def _figure(picture: Picture, caption: str, legend: str) -> str:
    width, _ = picture.size_inches
    return figure_html(
        _svg(picture),
        caption,
        legend=legend,
        least_px=picture.least_px,
        most_px=max(picture.least_px, round(110 * width)),
    )


def _pairs(result: Evaluation) -> str:
    rows = [
        {
            "label": result.classes[pair.label].name,
            "predicted": result.classes[pair.prediction].name,
            "images": f"{pair.images:,}",
            "of the label's images": percent(pair.images / max(1, result.classes[pair.label].support), 1),
        }
        for pair in result.pairs
    ]
    if not rows:
        return "<h2>Most confused pairs</h2><p>None: no answer is wrong.</p>"
    return f"<h2>Most confused pairs</h2>{table_html(rows, text_columns=('predicted',))}"


def _confusion(result: Evaluation) -> str:
    per_cell = classes_per_cell(len(result.classes))
    caption = "A row for each label, a column for each prediction; the colour is the share of the label's images."
    if per_cell > 1:
        caption += (
            f" A cell stands for {per_cell} by {per_cell} classes: the largest share of wrong answers in it, and on "
            "the diagonal the mean share of right ones."
        )
    legend = swatches_html(
        (f"{name} {share:.0%}", colour, opacity(share))
        for name, colour in (("right", RIGHT), ("wrong", WRONG))
        for share in (0.01, 0.1, 0.5, 1.0)
    )
    return f"<h2>Confusion matrix</h2>{_figure(confusion(result), caption, legend)}"


def _classes(result: Evaluation) -> str:
    """Recall and precision of each class as bars and as a table; of many classes the worst ones first."""
    many = len(result.classes) > MOST_ROWS
    ordered = worst_first(result.classes) if many else result.classes
    drawn = ordered[:MOST_BARS]
    few = len(drawn) < len(result.classes)
    caption = "Recall: share of the class's images that are right; precision: share of its predictions that are right."
    if few:
        caption = f"The {len(drawn):,} classes with the lowest F1. {caption}"
    legend = swatches_html((("recall", RECALL, 1.0), ("precision", PRECISION, 1.0)))
    rows = [
        {
            "class": one.name,
            "precision": percent(one.precision),
            "recall": percent(one.recall),
            "F1": percent(one.f1),
            "right": f"{one.right:,}",
            "images": f"{one.support:,}",
            "predicted": f"{one.predicted:,}",
        }
        for one in ([*ordered, *(one for one in result.classes if not one.support)] if many else result.classes)
    ]
    heading = "The classes with the lowest F1" if many else "Classes"
    table = table_html(rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        table += details_html(f"All {len(rows):,} classes", table_html(rows))
    figure = _figure(class_bars(drawn), caption, legend) if drawn else ""
    return f"<h2>{heading}</h2><div class=plots>{figure}<div>{table}</div></div>"


def _calibration(result: Evaluation) -> str:
    after, before = result.calibration, result.uncalibrated
    names = [(f"with temperature {after.temperature:.4g}" if before else "the model", WITH_TEMPERATURE, 1.0)]
    if before:
        names.append(("without", WITHOUT, 1.0))
    caption = (
        f"{len(after.bins)} bins of confidence: the share of right answers in each, and how many images it holds. On "
        "the dashed line, an answer with a confidence of 80 % is right in 80 % of the cases."
    )
    figure = _figure(reliability(after, before), caption, swatches_html(names))
    return f"<h2>Calibration</h2><p>{escaped(calibration_text(result))}.</p>{figure}"


def _gallery(heading: str, result: Evaluation, images: Sequence[ShownImage], *, none: str) -> str:
    if not images:
        return f"<h2>{heading}</h2><p>{none}</p>"
    figures = [_shown(result, one) for one in images]
    return f"<h2>{heading}</h2>{picture_grid(figures)}"


def _shown(result: Evaluation, one: ShownImage) -> str:
    label, prediction = (result.classes[k].name for k in (one.label, one.prediction))
    caption = f"{prediction}, {percent(one.confidence, 1)}"
    if one.label != one.prediction:
        caption += f"; it is {label}, {percent(one.label_probability, 1)}"
    return picture_html(one.picture, caption, alt=_image_name(one), small=_image_name(one))


def _image_name(one: ShownImage | ChangedImage) -> str:
    return one.name or f"image {one.index:,}"


def _scores(result: Comparison) -> list[dict[str, str]]:
    return [
        {
            "model": key,
            "accuracy": percent(one.accuracy),
            "right": f"{one.correct:,} of {one.images:,}",
            "top 5": "" if one.top5_correct is None else percent(one.top5_correct / one.images),
            "macro F1": percent(one.macro.f1),
            "ECE": percent(one.calibration.ece),
            "loss": f"{one.loss:.4f}",
        }
        for key, one in (("A", result.first), ("B", result.second))
    ]


def _changes(result: Comparison) -> list[str]:
    """What changed: counts, classes, and the images; one sentence if nothing did."""
    if not result.changed_images:
        return [f"<p>No answer changed: B answers {images_text(result.images)} as A does.</p>"]
    counts = (
        f"{result.changed_images:,} of {images_text(result.images)} have another answer: {result.lost:,} lost (only A "
        f"is right), {result.won:,} won (only B is right), {result.both_wrong_changed:,} wrong in both. "
        f"Both are right on {result.both_right:,}."
    )
    rows = [
        {
            "class": one.name,
            "images": f"{one.support:,}",
            "A right": f"{one.first_right:,}",
            "B right": f"{one.second_right:,}",
            "lost": f"{one.lost:,}",
            "won": f"{one.won:,}",
        }
        for one in sorted(result.classes, key=lambda one: (-abs(one.won - one.lost), -one.lost))
        if one.lost or one.won
    ]
    table = table_html(rows[:MOST_ROWS]) if rows else "<p>No class has more or fewer right answers.</p>"
    if len(rows) > MOST_ROWS:
        table += details_html(f"All {len(rows):,} classes that changed", table_html(rows))
    return [f"<p>{counts}</p>", *_changed_images(result), "<h2>Classes that changed</h2>", table]


def _changed_images(result: Comparison) -> list[str]:
    parts = []
    totals = {"lost": result.lost, "won": result.won, "both wrong": result.both_wrong_changed}
    for outcome, heading in OUTCOMES.items():
        images = [one for one in result.changed if one.outcome == outcome]
        if images:
            shown = f"{len(images):,} of {totals[outcome]:,}" if len(images) < totals[outcome] else f"{len(images):,}"
            parts.append(f"<h2>{heading} ({shown})</h2>{picture_grid(_changed(result, one) for one in images)}")
        elif totals[outcome]:
            parts.append(f"<h2>{heading} ({totals[outcome]:,})</h2><p>None of them is shown.</p>")
    return parts


def _changed(result: Comparison, one: ChangedImage) -> str:
    label, first, second = (result.classes[k].name for k in (one.label, one.first, one.second))
    caption = f"A: {first}, {percent(one.first_confidence, 1)}; B: {second}, {percent(one.second_confidence, 1)}"
    if one.outcome == "both wrong":
        caption += f"; it is {label}"
    return picture_html(one.picture, caption, alt=_image_name(one), small=_image_name(one))
