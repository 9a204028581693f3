"""Labels in tables: labels.csv, or train.csv, val.csv and test.csv, beside the images that they name.

A table has a header or none, one of the separators comma, semicolon and tab, and the encoding UTF-8, UTF-16 or
cp1252. Names are relative to the table, or to the folder of its split, or to a folder `images`; their suffix may
be left out.
"""

import csv
import io
import os
from collections import Counter

from ...errors import DataError
from ...text import visible
from ..file_rules import IMAGE_SUFFIXES
from .files import Files
from .listing import SPLIT_WORDS, Listing, SplitName, listing_from_labels

TABLE_NAMES = {
    f"{word}.{suffix}": split
    for word, split in {"labels": "labels", "label": "labels", **SPLIT_WORDS}.items()
    for suffix in ("csv", "tsv")
}
"""Names of tables in lower case, and their split; `labels` may have a column for it."""
FILE_COLUMNS = (
    "file", "filename", "file_name", "fname", "path", "filepath", "image", "image_path", "image_name", "img", "name",
    "id", "image_id", "isic_id",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "class_name", "classid", "class_id", "target", "category", "labels", "species", "breed",
    "diagnosis", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
SEPARATORS = ",;\t|"
IMAGE_FOLDERS = ("", "images/", "image/", "imgs/", "img/")
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def labels_of_tables(files: Files, tables: dict[str, str], *, model_classes: tuple[str, ...] = ()) -> Listing:
    """List the images that tables name. `tables`: the names of the tables, and their split or `labels`.

    `model_classes`: see listing_from_labels. Raises DataError for a table that cannot be read, a row without a file or
    label, and an image with two labels.
    """
    known = _Names(files)
    labels: dict[SplitName, list[tuple[str, str]]] = {}
    missing: list[tuple[SplitName, str, str]] = []
    where: dict[str, tuple[str, str, SplitName]] = {}
    repeated, notes = Counter[str](), list[str]()
    has_splits = any(tables[table] in SPLIT_WORDS for table in tables)
    for table in sorted(tables):
        own: SplitName | None = SPLIT_WORDS.get(tables[table])
        text, encoding = _text(files.read(table))
        if encoding == "cp1252":
            notes.append(f"{visible(table)}: not UTF-8; read as cp1252")
        rows, with_split = _rows(text, files, table, known)
        if own is None and has_splits and not with_split:
            notes.append(f"{visible(table)}: not used, because the other tables have the splits")
            continue
        named = set()
        for row, file, label, split_word in rows:
            split = own or _split(split_word, files, table, row)
            place = f"{visible(table)}, row {row}"
            if not file or not label:
                raise DataError(f"{files.root}: {place}: no {'label' if file else 'file'}")
            named.add(split)
            name = known.find(file, split)
            if name is None:
                missing.append((split, file, f"no such file; {place}"))
                continue
            before = where.get(name)
            if before is None:
                where[name] = (place, label, split)
                labels.setdefault(split, []).append((name, label))
            elif before[1] != label:
                raise DataError(
                    f"{files.root}: {visible(name)} has two labels: {before[1]!r} ({before[0]}) and {label!r} ({place})"
                )
            elif before[2] != split:
                raise DataError(
                    f"{files.root}: {visible(name)} is in two splits: {before[2]} ({before[0]}) and {split} ({place})"
                )
            else:
                repeated[name] += 1
        for split in sorted(named - labels.keys()):
            absent = [file for of, file, _ in missing if of == split]
            raise DataError(
                f"{files.root}: none of the {len(absent):,} files of the {split} split in {visible(table)} exists, the "
                f"first: {visible(absent[0])}; expected names relative to the table"
            )
    if repeated:
        notes.append(
            f"rows that repeat an image: {repeated.total():,}, the first: {visible(next(iter(repeated)))}; used once"
        )
    without = [name for name in files.names if name not in where and name not in tables and files.is_image(name)]
    if without:
        noun = "image is" if len(without) == 1 else "images are"
        notes.append(f"{len(without):,} {noun} in no table, the first: {visible(without[0])}")
    layout = "tables of labels: " + ", ".join(sorted(map(visible, tables)))
    return listing_from_labels(files, layout, labels, missing=missing, notes=notes, model_classes=model_classes)


class _Names:
    """Finds the images of a data set by what a table calls them."""

    def __init__(self, files: Files) -> None:
        self._names = set(files.names)
        self._stems: dict[str, str] = {}
        for name in files.names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                self._stems.setdefault(stem, name)
        tops = {name.split("/")[0] for name in files.names if "/" in name}
        self._folders = {
            split: [top for top in sorted(tops) if SPLIT_WORDS.get(top.lower()) == split]
            for split in set(SPLIT_WORDS.values())
        }
        self._root = f"{files.root.resolve()}/"

    def find(self, file: str, split: SplitName) -> str | None:
        """The name of an image as in Files; None if there is no such file."""
        name = file.replace("\\", "/").removeprefix(self._root)
        name = os.path.normpath(name) if name else name
        for folder in ("", *(f"{folder}/" for folder in self._folders[split])):
            for inner in IMAGE_FOLDERS:
                wanted = f"{folder}{inner}{name}"
                if wanted in self._names:
                    return wanted
                if wanted in self._stems:
                    return self._stems[wanted]
        return None


def _text(content: bytes) -> tuple[str, str]:
    """The text of a table, and its encoding."""
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding), encoding
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), "cp1252"


def _rows(text: str, files: Files, table: str, known: _Names) -> tuple[list[tuple[int, str, str, str]], bool]:
    """The number, file, label and split of each row, and whether there is a column for the split.

    Raises DataError for a table without a column of files or labels.
    """
    lines = text.lstrip("\r\n \ufeff")
    skipped = text[: len(text) - len(lines)].count("\n")
    if lines.lower().startswith("sep="):  # as Excel writes it
        _, _, lines = lines.partition("\n")
        skipped += 1
    first = lines.partition("\n")[0]
    separator = max(SEPARATORS, key=first.count)
    where = f"{files.root}: {visible(table)}"
    if not first.count(separator):
        raise DataError(f"{where}: one column only; expected the columns file and label")
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        stripped = ((skipped + reader.line_num, [cell.strip() for cell in row]) for row in reader)
        rows = [(number, row) for number, row in stripped if any(row)]
    except csv.Error as error:
        raise DataError(f"{where}, row {skipped + reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{where}: no rows; expected the columns file and label")
    names = [cell.lower() for cell in rows[0][1]]
    file, label, split = (
        next((names.index(name) for name in known_names if name in names), None)
        for known_names in (FILE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    )
    has_header = file is not None or label is not None
    if file is None or label is None:
        rest = [index for index in range(len(names)) if index not in (file, label, split)]
        exists = [index for index in rest if known.find(rows[0][1][index], "train") is not None]
        if len(names) == 2 and not has_header:
            file, label = (exists[0] if len(exists) == 1 else 0), 1 - (exists[0] if len(exists) == 1 else 0)
            # A first row that names no file, before one that does, has names of columns that are not known.
            has_header = not exists and len(rows) > 1 and known.find(rows[1][1][file], "train") is not None
        elif len(rest) == 1:
            file, label = (rest[0] if file is None else file), (rest[0] if label is None else label)
        else:
            columns = ", ".join(map(visible, names))
            raise DataError(f"{where}: its columns are {columns}; expected file and label")
    found = []
    for number, row in rows[1:] if has_header else rows:
        cells = [row[index] if index is not None and index < len(row) else "" for index in (file, label, split)]
        found.append((number, cells[0], cells[1], cells[2]))
    return found, split is not None


def _split(word: str, files: Files, table: str, row: int) -> SplitName:
    """The split that a cell names; an empty one is training. Raises DataError."""
    if not word:
        return "train"
    if word.lower() not in SPLIT_WORDS:
        raise DataError(
            f"{files.root}: {visible(table)}, row {row}: unknown split {word!r}; expected train, validation or test"
        )
    return SPLIT_WORDS[word.lower()]
