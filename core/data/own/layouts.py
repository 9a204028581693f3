"""Find out how a folder or archive holds labelled images, and list them.

The layouts, in the order in which they are looked for:

    labels.csv, or train.csv and test.csv     tables with the columns file and label
    0001.jpg with 0001.cls                    pairs in archives (WebDataset)
    train/<class>/*, val/<class>/*            split folders, in any combination, with folders of classes
    <class>/*                                 folders of classes alone; the test split is drawn

A folder that holds nothing but one other folder, or archives, stands for that folder or these archives.
"""

import json
import re
from collections import defaultdict
from pathlib import Path

from ...errors import DataError
from ...text import visible
from ..file_rules import ARCHIVE
from .draw import drawn_test
from .files import INSIDE, ArchiveFiles, Files, FolderFiles
from .label_tables import TABLE_NAMES, labels_of_tables
from .listing import EXPECTED, SPLIT_WORDS, SPLITS, Listing, SplitName, listing_from_labels

SHARD_SPLIT = re.compile(r"(?:^|[^a-z])(" + "|".join(sorted(SPLIT_WORDS, key=len, reverse=True)) + r")(?:[^a-z]|$)")
"""A split in the name of an archive: train-0001.tar, pets_val.tar."""
PAIR_LABELS = (".cls", ".txt", ".json")
JSON_LABELS = ("label", "class", "cls", "class_name", "target")
SHOWN = 3

Labels = dict[SplitName, list[tuple[str, str]]]


def find_listing(root: Path, *, seed: int, test_share: float) -> Listing:
    """List the labelled images below a folder, or in an archive.

    Without any split but training, a stratified test split is drawn: `test_share` of each class, by the seed.
    Raises DataError if the layout is none of those above.
    """
    files = _files_of(root)
    listing = _listing_of(files)
    if listing.splits.keys() <= {"train"}:
        listing = drawn_test(listing, seed=seed, share=test_share)
    for name, reason in files.errors[:SHOWN]:
        listing.notes.append(f"{visible(name)}: {reason}")
    if len(files.errors) > SHOWN:
        listing.notes.append(f"and {len(files.errors) - SHOWN:,} more that cannot be read")
    return listing


def _files_of(root: Path) -> Files:
    if not root.is_dir():
        return ArchiveFiles([root], root)
    files = FolderFiles(root)
    archives = [name for name in files.names if ARCHIVE.fullmatch(name)]
    if archives and not any(files.is_image(name) for name in files.names if name not in archives):
        nested = [name for name in archives if "/" in name]
        if not nested:
            return ArchiveFiles([root / name for name in archives], root)
    return files


def _listing_of(files: Files) -> Listing:
    tables = {name: word for name in files.names if (word := TABLE_NAMES.get(name.lower()))}
    if tables:
        return labels_of_tables(files, tables)
    if isinstance(files, ArchiveFiles) and (pairs := _pairs(files)):
        return pairs
    depth = _wrapping_folders(files.names)
    by_split, outside = _class_folders(files, depth)
    if not by_split:
        _raise_no_layout(files)
    found = " and ".join(split for split in SPLITS if split in by_split)
    layout = f"class folders in {found}" if found else "class folders"
    labels: Labels = {}
    for split, pairs_ in by_split.items():
        labels.setdefault(SPLIT_WORDS.get(split, "train"), []).extend(pairs_)
    notes = [f"{_count(outside)} outside of class folders, the first: {visible(outside[0])}"] if outside else []
    return listing_from_labels(files, layout, labels, notes=notes)


def _raise_no_layout(files: Files) -> None:
    images = [name for name in files.names if files.is_image(name)]
    if not images:
        left_out = files.left_out.to_text()
        raise DataError(f"{files.root}: holds no images{f', but {left_out}' if left_out else ''}; {EXPECTED}")
    raise DataError(f"{files.root}: {_count(images)} without a class, the first: {visible(images[0])}; {EXPECTED}")


def _count(names: list[str]) -> str:
    return f"{len(names):,} {'image' if len(names) == 1 else 'images'}"


def _wrapping_folders(names: list[str]) -> int:
    """The number of folders that only hold one other folder, as unpacked archives often have, or are split names."""
    depth = 0
    while True:
        parts = {tuple(name.split("/")[: depth + 2]) for name in names}
        first = {part[depth] for part in parts if len(part) > depth + 1}
        only_folders = all(len(part) > depth + 1 for part in parts)
        below = {part[depth + 1] for part in parts if len(part) > depth + 1}
        deeper = any(name.count("/") > depth + 1 for name in names)
        if not (only_folders and len(first) == 1 and deeper and below) or first.pop().lower() in SPLIT_WORDS:
            return depth
        depth += 1


def _class_folders(files: Files, depth: int) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """The images of class folders by split ("" without split folders), and images outside of class folders."""
    top = {name.split("/")[depth] for name in files.names if name.count("/") > depth}
    has_splits = any(_split_of(name) == "train" for name in top)
    if top and not has_splits and all(map(_split_of, top)):
        raise DataError(f"{files.root}: no train folder, only {', '.join(sorted(top))}; {EXPECTED}")
    labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
    outside, unknown = list[str](), set[str]()
    for name in files.names:
        parts = name.split("/")[depth:]
        split = _split_of(parts[0]) if has_splits else None
        if has_splits and split is None:
            unknown.add(parts[0])
            continue
        inner = parts[1:] if has_splits else parts
        if not files.is_image(name):
            files.left_out.add_no_image(name)
        elif len(inner) < 2:
            outside.append(name)
        else:
            labels[split or ""].append((name, inner[0]))
    for folder in sorted(unknown & top):
        files.left_out.passed_over[folder] += 1
    for folder in files.folders:
        parts = folder.split("/")[depth:]
        is_class = len(parts) == (2 if has_splits else 1) and (not has_splits or _split_of(parts[0]) == "train")
        if is_class and parts[-1] not in {name for _, name in labels["train" if has_splits else ""]}:
            raise DataError(f"{files.root / folder}: no images; every class needs at least one, or remove the folder")
    if has_splits and not labels.get("train"):
        raise DataError(f"{files.root}: the train folder holds no class folders with images; {EXPECTED}")
    return labels, outside


def _split_of(folder: str) -> SplitName | None:
    return SPLIT_WORDS.get(folder.lower())


def _pairs(files: ArchiveFiles) -> Listing | None:
    """Images with a label of the same name up to its first dot, as in WebDataset; None if there are no such pairs."""
    keys: dict[str, dict[str, str]] = defaultdict(dict)
    for name in files.names:
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        kind = "image" if files.is_image(name) else f".{suffix.lower()}"
        keys[f"{folder}{slash}{stem}"].setdefault(kind, name)
    labels: Labels = {}
    unlabelled = list[str]()
    for parts in keys.values():
        label = next((parts[kind] for kind in PAIR_LABELS if kind in parts), None)
        if "image" in parts and label:
            image = parts["image"]
            shard = image.partition(INSIDE)[0] if INSIDE in image else files.root.name
            found = SHARD_SPLIT.search(shard.lower())
            labels.setdefault(SPLIT_WORDS[found[1]] if found else "train", []).append((image, _label(files, label)))
        elif "image" in parts:
            unlabelled.append(parts["image"])
    if not labels:
        return None
    if "train" not in labels and len(labels) == 1:
        labels = {"train": next(iter(labels.values()))}
    notes = [f"{_count(unlabelled)} without a label, the first: {visible(unlabelled[0])}"] if unlabelled else []
    return listing_from_labels(files, "WebDataset pairs", labels, notes=notes)


def _label(files: Files, name: str) -> str:
    """The label in a text of WebDataset: the text itself, or a field of JSON. Raises DataError."""
    text = files.read(name).decode("utf-8-sig", "replace").strip()
    if name.lower().endswith(".json"):
        try:
            content = json.loads(text)
        except ValueError as error:
            raise DataError(f"{files.root}: {visible(name)}: not JSON: {error}") from error
        if isinstance(content, dict):
            content = next((content[key] for key in JSON_LABELS if key in content), None)
        if not isinstance(content, str | int) or isinstance(content, bool):
            raise DataError(f"{files.root}: {visible(name)}: no label; expected one of {', '.join(JSON_LABELS)}")
        text = str(content)
    if not text:
        raise DataError(f"{files.root}: {visible(name)}: an empty label")
    return text
