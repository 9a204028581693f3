"""The colours of plots are readable on both pages, and the colour-blind tell them apart."""

import itertools
import re

import numpy as np
import pytest
from rtk.core.plot_colours import ALL
from rtk.core.web_page import STYLE


def luminance(colour: str) -> float:
    """WCAG's relative luminance of a colour such as #12ab34."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_colours_of_plots_have_enough_contrast_on_both_pages() -> None:
    papers = re.findall(r"--paper: (#\w+)", STYLE)
    assert papers == ["#fff", "#16181c"]
    for paper in (1.0, luminance(papers[1])):
        for colour in ALL:
            low, high = sorted((paper, luminance(colour)))
            assert (high + 0.05) / (low + 0.05) >= 3, colour


# Viénot, Brettel and Mollon (1999), which is not the model by which the colours were chosen: linear RGB to linear RGB.
DICHROMATS = {
    "protan": ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0)),
    "deutan": ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0)),
}


@pytest.mark.parametrize("vision", ["all", *DICHROMATS])
def test_the_colours_of_plots_are_told_apart_by_the_colour_blind(vision: str) -> None:
    matrix = np.array(DICHROMATS.get(vision, np.eye(3)))

    def lab(colour: str) -> np.ndarray:
        rgb = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        linear = matrix @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = np.cbrt(to_xyz @ np.clip(linear, 0, 1) / (0.9505, 1.0, 1.0891))
        return np.array([116 * xyz[1] - 16, 500 * (xyz[0] - xyz[1]), 200 * (xyz[1] - xyz[2])])

    distances = {pair: float(np.linalg.norm(lab(pair[0]) - lab(pair[1]))) for pair in itertools.combinations(ALL, 2)}
    assert min(distances.values()) > 10, min(distances, key=distances.__getitem__)  # 2.3 is just noticeable
