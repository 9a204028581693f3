"""Find out how a folder or archive holds labelled images, and list them.

The layouts, in the order in which they are looked for:

    labels.csv, or train.csv and test.csv     tables with the columns file and label
    0001.jpg with 0001.cls                    pairs in archives (WebDataset)
    train/<class>/*, val/<class>/*            split folders, in any combination, with folders of classes
    <class>/*                                 folders of classes alone; the test split is drawn

A folder that holds nothing but one other folder, or archives, stands for that folder or these archives. An archive with
a split in its name, such as pets-train.zip, stands for a folder of that split.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError
from ...text import first_few, images_text, visible
from ..file_rules import ARCHIVE
from .draw import drawn_test
from .files import INSIDE, ArchiveFiles, Files, FolderFiles
from .label_tables import TABLE_NAMES, labels_of_tables
from .listing import EXPECTED, SPLIT_WORDS, SPLITS, Listing, SplitName, listing_from_labels
from .pairs import listing_of_pairs

WITH_SPLIT = re.compile(
    r"(?:^|[^a-z])(" + "|".join(sorted(SPLIT_WORDS, key=len, reverse=True)) + r")(?:[^a-z]|$)", re.IGNORECASE
)
"""A split in the name of an archive or folder: train-0001.tar, pets_val.tar, seg_train."""

Labels = dict[SplitName, list[tuple[str, str]]]


def find_listing(root: Path, *, model_classes: tuple[str, ...] = ()) -> Listing:
    """List the labelled images below a folder, or in an archive. No split is drawn; see `with_test_split`.

    `model_classes`: the classes of a model that only evaluates the images; see DataOptions.evaluation. Raises
    DataError if the layout is none of those above, if a folder cannot be read, or if an archive is damaged.
    """
    files = _files_of(root)
    for name, reason in files.errors:
        if INSIDE not in name and not isinstance(files, ArchiveFiles):
            raise DataError(f"{root / name}: {reason}")
        if isinstance(files, ArchiveFiles) and files.is_archive(name):
            raise DataError(f"{root if root.name == name else root / name}: {reason}")
    listing = _listing_of(files, model_classes)
    listing.missing.extend(("train", name, reason) for name, reason in files.errors)
    if isinstance(files, ArchiveFiles) and files.repeated:
        listing.notes.append(
            f"names that an archive holds more than once: {len(files.repeated):,}, the first: "
            f"{visible(files.repeated[0])}; the last file of that name counts"
        )
    return listing


def with_test_split(listing: Listing, *, seed: int, share: float) -> Listing:
    """The listing; without any split but training, with a stratified test split: `share` of each class, by the seed.

    Raises DataError if no class has two images.
    """
    return drawn_test(listing, seed=seed, share=share) if listing.splits.keys() <= {"train"} else listing


def _files_of(root: Path) -> Files:
    """The files of a folder or archive, below the folders that hold nothing but one other folder."""
    if not root.is_dir():
        files: Files = ArchiveFiles([root], root)
        files.unwrap(_wrapping_folders(files))
        return files
    folder = FolderFiles(root)
    folder.unwrap(_wrapping_folders(folder))
    archives = [name for name in folder.names if ARCHIVE.fullmatch(name)]
    others = [name for name in folder.names if name not in set(archives)]
    if not archives:
        return folder
    if any(_may_hold_labels(folder, name) for name in others) or any("/" in name for name in archives):
        for name in archives:
            folder.left_out.add_archive(name)
        return folder
    return ArchiveFiles([folder.path_of(name) for name in archives], root)


def _may_hold_labels(files: Files, name: str) -> bool:
    return name.lower() in TABLE_NAMES or files.is_image(name)


def _wrapping_folders(files: Files) -> str:
    """The folders, with `/` at their end, that hold nothing of interest but one other folder; empty without them."""
    wanted = [name for name in files.names if _may_hold_labels(files, name) or ARCHIVE.fullmatch(name)]
    wanted += [name for name in files.names if name.split("/")[-1].lower() in TABLE_NAMES]
    prefix = ""
    while wanted:
        inner = [name[len(prefix) :] for name in wanted]
        first = {name.split("/")[0] for name in inner if "/" in name}
        below = [name.partition("/")[2] for name in inner]
        special = any("/" not in name and (name.lower() in TABLE_NAMES or ARCHIVE.fullmatch(name)) for name in below)
        if len(first) != 1 or not all("/" in name for name in inner):
            break
        (folder,) = first
        if SPLIT_WORDS.get(folder.lower()) or not (special or any("/" in name for name in below)):
            break
        prefix += f"{folder}/"
    return prefix


def _listing_of(files: Files, model_classes: tuple[str, ...]) -> Listing:
    tables = {name: word for name in files.names if (word := TABLE_NAMES.get(name.lower()))}
    if tables:
        return labels_of_tables(files, tables, model_classes=model_classes)
    places = _places(files)
    if isinstance(files, ArchiveFiles) and (pairs := listing_of_pairs(files, places, model_classes=model_classes)):
        return pairs
    by_split, notes = _class_folders(files, places, evaluation=bool(model_classes))
    if not any(by_split.values()):
        _raise_no_layout(files)
    found = [split for split in SPLITS if split in by_split]
    layout = f"class folders in {_joined(found)}" if found else "class folders"
    labels: Labels = {}
    for split, some in by_split.items():
        labels.setdefault(SPLIT_WORDS.get(split, "train"), []).extend(some)
    return listing_from_labels(files, layout, labels, notes=notes, model_classes=model_classes)


def _joined(words: list[SplitName]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _places(files: Files) -> dict[str, str]:
    """Every name as if archives were folders: an archive with a split in its name is the folder of that split.

    Raises DataError for several archives of which some have no split in their name.
    """
    archives = {name.partition(INSIDE)[0] for name in files.names if INSIDE in name}
    found = {archive: WITH_SPLIT.search(archive) for archive in archives}
    without = sorted(archive for archive, match in found.items() if not match)
    if without and len(without) < len(archives):
        raise DataError(f"{files.root}: no split in the name of {visible(without[0])}, but in others; rename it")
    folders = {archive: f"{match[1]}/" if match else "" for archive, match in found.items()}
    places = {}
    for name in files.names:
        archive, inside, member = name.partition(INSIDE)
        places[name] = f"{folders[archive]}{member}" if inside else name
    return places


def _raise_no_layout(files: Files) -> None:
    images = [name for name in files.names if files.is_image(name)]
    if not images:
        left_out = files.left_out.to_text()
        raise DataError(f"{files.root}: holds no images{f', but {left_out}' if left_out else ''}; {EXPECTED}")
    raise DataError(
        f"{files.root}: {images_text(len(images))} without a class, the first: {visible(images[0])}; {EXPECTED}"
    )


def _class_folders(
    files: Files, places: dict[str, str], *, evaluation: bool
) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """The images of class folders by split ("" without split folders), and notes about images that are left out.

    `evaluation`: no training split is needed, and no image of every class.
    """
    images = {name: places[name] for name in files.names if files.is_image(name)}
    for name in files.names:
        if name not in images and not ARCHIVE.fullmatch(name):
            files.left_out.add_no_image(name)
    split_of = _splits_of_folders(files, list(images.values()), evaluation=evaluation)
    labels: dict[str, list[tuple[str, str]]] = defaultdict(list)
    outside, no_split = list[str](), Counter[str]()
    wraps = {folder: _wrap_in(folder, images.values()) for folder in split_of}
    for name, place in images.items():
        parts = place.split("/")
        split = ""
        if split_of:
            if parts[0] not in split_of:
                outside.append(name) if len(parts) == 1 else no_split.update([parts[0]])
                continue
            split = split_of[parts[0]]
            parts = parts[1 + wraps[parts[0]] :]
        if len(parts) < 2:
            outside.append(name)
        else:
            labels[split].append((name, parts[0]))
    notes = (
        [f"{images_text(len(outside))} outside of class folders, the first: {visible(outside[0])}"] if outside else []
    )
    if no_split:
        folders = [f"{visible(folder)} ({images_text(count)})" for folder, count in sorted(no_split.items())]
        notes.append(f"folders that are no split, left out: {first_few(folders)}")
    if evaluation:
        return labels, notes
    if split_of and not labels.get("train"):
        raise DataError(f"{files.root}: the train folder holds no class folders with images; {EXPECTED}")
    _check_empty_classes(files, split_of, wraps, {name for _, name in labels["train" if split_of else ""]})
    return labels, notes


def _splits_of_folders(files: Files, places: list[str], *, evaluation: bool) -> dict[str, SplitName]:
    """The folders at the top that are splits; empty if the folders at the top are classes."""
    top = {place.split("/")[0] for place in places if "/" in place}
    deep = {place.split("/")[0] for place in places if place.count("/") > 1}
    exact = {folder: SPLIT_WORDS[folder.lower()] for folder in top if folder.lower() in SPLIT_WORDS}
    named = {folder: SPLIT_WORDS[match[1].lower()] for folder in top if (match := WITH_SPLIT.search(folder))}
    for found in (exact, named):
        splits = set(found.values())
        has_train = any(found[folder] == "train" for folder in deep & found.keys())
        if has_train and (found is exact or len(splits) > 1):
            return found
    if evaluation and top and top == deep & exact.keys():
        return exact
    if top and top == exact.keys():
        missing = "no class folders in train" if "train" in exact.values() else "no train folder"
        raise DataError(f"{files.root}: {missing}, only {', '.join(sorted(top))}; {EXPECTED}")
    if len(named) > 1:
        raise DataError(f"{files.root}: {', '.join(sorted(named))} look like splits, not like classes; {EXPECTED}")
    return {}


def _wrap_in(folder: str, places: Iterable[str]) -> int:
    """The number of folders in a split folder that hold nothing but one other folder: train/train/cat."""
    parts = [place.split("/")[1:] for place in places if place.startswith(f"{folder}/")]
    depth = 0
    while (
        parts
        and len({part[depth] for part in parts if len(part) > depth + 1}) == 1
        and all(len(part) > depth + 2 for part in parts)
    ):
        depth += 1
    return depth


def _check_empty_classes(
    files: Files, split_of: dict[str, SplitName], wraps: dict[str, int], classes: set[str]
) -> None:
    """Raise DataError for a class folder of the training images that holds none."""
    for folder in files.folders:
        parts = folder.split("/")
        if not split_of:
            is_class = len(parts) == 1
        else:
            is_class = split_of.get(parts[0]) == "train" and len(parts) == 2 + wraps[parts[0]]
        if is_class and parts[-1] not in classes:
            raise DataError(f"{files.root / folder}: no images; every class needs at least one, or remove the folder")
