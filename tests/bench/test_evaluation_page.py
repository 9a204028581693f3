"""The pages of an evaluation and of a comparison: complete, safe, and readable on a phone."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fakes.browser import look_at
from fakes.evaluations import compared, made_up
from rtk.bench.evaluation.page import comparison_page_of, page_of
from rtk.bench.evaluation.plots import classes_per_cell, confusion, worst_first
from rtk.core.svg_plot import svg_of

DANGEROUS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "two\nlines",
    "$formula_1$",
    "a class whose name is far longer than anything that a picture has room for, and then some more",
    "日本語の名前",
    "&lt;b&gt;",
    "\u202egnp.exe",
)


def text_of(page: str) -> str:
    """The words of a page, without its pictures."""
    words: list[str] = []

    class Words(HTMLParser):
        hidden = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.hidden += tag in ("style", "svg", "title")

        def handle_endtag(self, tag: str) -> None:
            self.hidden -= tag in ("style", "svg", "title")

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                words.append(data)

    Words().feed(page)
    return " ".join(" ".join(words).split())


def test_the_page_begins_with_the_answer_and_ends_with_what_it_was_measured_on() -> None:
    result = made_up()
    text = text_of(page_of(result))
    expected = (
        f"{result.correct} of 600 images; 95 % interval",
        "calibration ECE ",
        "Most confused pairs",
        "Confusion matrix",
        "Classes",
        "Calibration",
        "Surest wrong answers",
        "Least sure right answers",
        "What it was measured on",
        "models/best.onnx (sha256 0123456789ab)",
    )
    places = [text.index(words) for words in expected]
    assert places == sorted(places)


def test_every_figure_of_a_class_is_in_the_table() -> None:
    result = made_up(3, 90)
    one = result.classes[1]
    assert one.precision is not None
    assert one.recall is not None
    table = page_of(result).partition("<h2>Classes</h2>")[2]
    row = re.search(r"<tr><td class='text'>class 1(.*?)<tr>", table)
    assert row
    values = re.sub(r" class='[^']*'", "", row[1]).split("<td>")[1:]
    assert values[:2] == [f"{one.right / one.predicted:.2%}", f"{one.right / one.support:.2%}"]
    assert values[3:] == [str(one.right), str(one.support), str(one.predicted)]


def test_up_to_twenty_classes_the_cells_of_the_matrix_show_their_counts() -> None:
    result = made_up(20, 4000)
    drawing = confusion(result)
    svg = svg_of(drawing.draw, size_inches=drawing.size_inches, grid=False)
    shown = sorted(int(number.replace(",", "")) for number in re.findall(r">([\d,]+)</text>", svg))
    assert shown == sorted(count for row in result.confusion for count in row if count)
    many = confusion(made_up(21, 4000))
    assert not re.findall(r">\d+</text>", svg_of(many.draw, size_inches=many.size_inches, grid=False))


def test_cells_that_stand_for_several_classes_lose_no_mistake() -> None:
    """1,000 classes, each right but one: a single wrong answer is one coloured cell off the diagonal."""
    from rtk.bench.evaluation import plots

    counts_KK = np.eye(1000, dtype=np.int64)
    counts_KK[3, 3], counts_KK[3, 997] = 0, 1
    assert classes_per_cell(1000) == 5
    colours = plots._cell_colours(counts_KK, 5)
    assert colours.shape == (200, 200, 4)
    opaque = colours[..., 3].copy()
    assert opaque[0, 0] == pytest.approx(0.65 * 0.8 ** (1 / 3))
    np.fill_diagonal(opaque, 0)
    assert np.argwhere(opaque > 0).tolist() == [[0, 199]]


def test_of_many_classes_the_worst_come_first_and_all_are_in_the_page() -> None:
    result = made_up(100, 3000)
    text = text_of(page_of(result))
    assert "The classes with the lowest F1" in text
    worst = worst_first(result.classes)
    assert text.index(f"{worst[0].name} ", text.index("lowest F1")) < text.index("All 100 classes")
    table = text.rpartition("All 100 classes")[2].partition("Calibration ECE")[0]
    assert all(re.search(rf"{one.name}\b", table) for one in result.classes)


def test_names_cannot_become_html_or_formulas() -> None:
    result = made_up(len(DANGEROUS), 200, names=DANGEROUS, files=tuple(f"{name}.png" for name in DANGEROUS * 25))
    for page in (page_of(result), comparison_page_of(compared(len(DANGEROUS), 200, names=DANGEROUS))):
        assert "<script" not in page
        assert "onerror=alert(1)>" not in page.replace("&gt;", "")
        assert "\u202e" not in page
        links = set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')>\s]+)", re.sub(r">[^<]*<", "><", page)))
        assert all(link.startswith(("#", "data:image/png;base64,")) or link == "x" for link in links), links
        assert "$formula_1$" in page
        assert "日本語の名前" in page


def test_no_wrong_answer_and_no_right_answer_are_sentences() -> None:
    page = page_of(made_up(accuracy=1.0))
    assert "<p>None: no answer is wrong.</p>" in page
    assert "<h2>Surest wrong answers</h2><p>No answer is wrong.</p>" in page
    assert "<h2>Least sure right answers</h2><p>No answer is right.</p>" in page_of(made_up(accuracy=0.0))


@pytest.mark.parametrize(("classes", "images"), [(1, 3), (2, 1), (2, 40), (10, 1), (1000, 50)])
def test_few_classes_and_few_images_have_a_page(classes: int, images: int) -> None:
    result = made_up(classes, images)
    text = text_of(page_of(result))
    assert f"{result.correct} of {images} image" in text
    assert ("top 5" in text) == (classes > 5)


def test_figures_that_are_not_numbers_do_not_stop_the_page() -> None:
    result = made_up()
    nan = float("nan")
    calibration = dataclasses.replace(
        result.calibration,
        ece=nan,
        loss=nan,
        bins=tuple(dataclasses.replace(one, confidence=nan) for one in result.calibration.bins),
    )
    classes = tuple(dataclasses.replace(one, precision=None, f1=None) for one in result.classes)
    assert "ECE nan%" in text_of(page_of(dataclasses.replace(result, calibration=calibration, classes=classes)))


def test_the_reliability_diagram_shows_the_model_before_and_after_its_temperature() -> None:
    plain, scaled = page_of(made_up()), page_of(made_up(temperature=2.0))
    assert "data-reliability-after" in plain
    assert "data-reliability-before" not in plain
    assert "data-reliability-before" in scaled
    assert "with temperature 2" in text_of(scaled)


def test_an_image_has_its_label_prediction_confidence_and_name() -> None:
    result = made_up(3, 60, files=tuple(f"photos/{k}.png" for k in range(60)))
    one = result.surest_wrong[0]
    page = page_of(result)
    prediction, label = result.classes[one.prediction].name, result.classes[one.label].name
    caption = f"{prediction}, {one.confidence:.1%}; it is {label}, {one.label_probability:.1%}<small>{one.name}</small>"
    assert caption in page
    assert one.picture in page


def test_a_comparison_begins_with_the_difference_and_shows_the_changed_images() -> None:
    result = compared()
    page = comparison_page_of(result)
    text = text_of(page)
    points = 100 * (result.won - result.lost) / 600
    assert text.index(f"{points:+.2f} points of accuracy") < text.index(f"{result.lost} lost (only A is right)")
    assert page.count("<img") == len(result.changed)
    one = result.changed[0]
    names = [result.classes[k].name for k in (one.first, one.second)]
    assert f"A: {names[0]}, {one.first_confidence:.1%}; B: {names[1]}, {one.second_confidence:.1%}" in page


def test_changed_answers_without_a_picture_are_counted() -> None:
    result = compared()
    only_lost = tuple(one for one in result.changed if one.outcome == "lost")
    text = text_of(comparison_page_of(dataclasses.replace(result, changed=only_lost)))
    assert f"Won: only B is right ({result.won}) None of them is shown." in text


def test_a_comparison_without_a_change_is_one_sentence() -> None:
    page = comparison_page_of(compared(changed=False))
    assert "<p>No answer changed: B answers 600 images as A does.</p>" in page
    assert "class=images" not in page
    assert "Classes that changed" not in page


def test_the_pages_load_nothing_and_run_nothing() -> None:
    for page in (page_of(made_up()), comparison_page_of(compared())):
        assert "default-src 'none'" in page
        assert "<script" not in page
        assert "#010203" not in page


LONG = tuple(f"{'a rather long name of a class, number '}{k}" for k in range(30))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("classes", "names"), [(2, ()), (10, ()), (30, LONG), (8, DANGEROUS), (100, ()), (1000, ())])
def test_only_boxes_scroll_and_no_text_of_a_plot_is_hidden(
    classes: int, names: tuple[str, ...], width: int, tmp_path: Path
) -> None:
    result = made_up(classes, 30 * classes, names=names, temperature=1.5)
    seen = look_at(page_of(result), tmp_path, width=width)
    assert seen.width > width - 20
    assert seen.sideways == 0
    assert seen.loose == 0
    assert seen.faults == []
    assert {"data-confusion", "data-reliability-after", "data-reliability-before"} <= set(seen.series)
    assert set(seen.images) == {8}
    if width == 1280:
        assert [text for text in seen.cut if "class" in text and "label" not in text[:6]] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_comparison_does_not_scroll_sideways(width: int, tmp_path: Path) -> None:
    seen = look_at(comparison_page_of(compared(30, 900, names=LONG)), tmp_path, width=width)
    assert (seen.sideways, seen.loose, seen.faults) == (0, 0, [])
    assert set(seen.images) == {8}
    assert not seen.cut or width == 390
