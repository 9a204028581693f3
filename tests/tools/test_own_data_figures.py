"""The table of the documentation about a large data set of the user's own is that of the newest record."""

from pathlib import Path

import numpy as np
from PIL import Image
from rtk.tools.own_data_figures import RECORDS, draw_pictures, linked, own_data_block
from rtk.tools.readme_tables import block_in

PAGE = Path(__file__).parent.parent.parent / "docs" / "own-data.md"


def test_the_page_has_the_newest_record() -> None:
    assert block_in(PAGE.read_text(encoding="utf-8"), "own-data") == own_data_block(RECORDS)
    assert own_data_block(Path("nowhere")) == ""


def test_pictures_are_drawn_once_and_a_part_of_them_is_linked(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 40)
    paths = sorted((tmp_path / "pictures").glob("*/*/*.jpg"))
    assert len(paths) == 40
    assert sum(path.parent.parent.name == "test" for path in paths) == 8
    with Image.open(paths[0]) as image:
        assert (image.format, image.size) == ("JPEG", (224, 224))
        assert np.asarray(image).std() > 5
    before = [path.stat().st_mtime_ns for path in paths]
    draw_pictures(tmp_path / "pictures", 40)
    assert [path.stat().st_mtime_ns for path in paths] == before
    part = linked(tmp_path / "pictures", tmp_path / "half", 2)
    assert 20 <= len(list(part.glob("*/*/*.jpg"))) < 40
