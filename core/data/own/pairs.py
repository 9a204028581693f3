"""Pairs in archives, as WebDataset has them: an image and its label with the same name up to its first dot."""

import json
from collections import defaultdict

from ...errors import DataError
from ...text import images_text, visible
from .files import Files
from .listing import SPLIT_WORDS, Listing, SplitName, listing_from_labels

JSON_LABELS = ("label", "class", "cls", "class_name", "target")


def listing_of_pairs(files: Files, places: dict[str, str], *, model_classes: tuple[str, ...] = ()) -> Listing | None:
    """List the pairs of an archive; None if it holds none, or if its folders are the classes.

    `places`: see layouts. `model_classes`: see listing_from_labels. A label is a .cls file, a .json file with a field
    for it, or a .txt file. Texts beside images in several folders are no labels: they may be captions. Raises
    DataError for two images with one label.
    """
    keys: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in files.names:
        folder, slash, base = places[name].rpartition("/")
        stem, _, suffix = base.partition(".")
        kind = "image" if files.is_image(name) else f".{suffix.lower()}"
        keys[f"{folder}{slash}{stem}"][kind].append(name)
    with_images = {key: parts for key, parts in keys.items() if "image" in parts}
    folders = {key.rpartition("/")[0] for key in with_images}
    texts_count = len({folder.split("/")[-1] for folder in folders}) < 2
    labels: dict[SplitName, list[tuple[str, str]]] = {}
    unlabelled, kinds = list[str](), set[str]()
    for key, parts in with_images.items():
        kind, label = _label(files, parts, texts_count=texts_count)
        if label is None:
            unlabelled += parts["image"]
            continue
        if len(parts["image"]) > 1:
            raise DataError(
                f"{files.root}: {visible(parts['image'][0])} and {visible(parts['image'][1])} have one label, because "
                "names count up to their first dot; rename them"
            )
        kinds.add(kind)
        first = key.split("/")[0].lower()
        split = SPLIT_WORDS.get(first, "train") if "/" in key else "train"
        labels.setdefault(split, []).append((parts["image"][0], label))
    if not labels or (unlabelled and ".cls" not in kinds and len(folders) > 1):
        return None
    count = images_text(len(unlabelled))
    notes = [f"{count} without a label, the first: {visible(unlabelled[0])}"] if unlabelled else []
    return listing_from_labels(files, "WebDataset pairs", labels, notes=notes, model_classes=model_classes)


def _label(files: Files, parts: dict[str, list[str]], *, texts_count: bool) -> tuple[str, str | None]:
    """The kind of file that holds the label of an image, and the label; None without one. Raises DataError."""
    if ".cls" in parts:
        return ".cls", _text(files, parts[".cls"][-1])
    if ".json" in parts and (label := _label_in_json(files, parts[".json"][-1])) is not None:
        return ".json", label
    if ".txt" in parts and texts_count:
        return ".txt", _text(files, parts[".txt"][-1])
    return "", None


def _text(files: Files, name: str) -> str:
    text = files.read(name).decode("utf-8-sig", "replace").strip()
    if not text:
        raise DataError(f"{files.root}: {visible(name)}: an empty label")
    return text


def _label_in_json(files: Files, name: str) -> str | None:
    """The label in a JSON file: the first of JSON_LABELS, or the whole content if it is a text or a number."""
    try:
        content = json.loads(files.read(name))
    except ValueError as error:
        raise DataError(f"{files.root}: {visible(name)}: not JSON: {error}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in JSON_LABELS if key in content), None)
    return str(content) if isinstance(content, str | int) and not isinstance(content, bool) and content != "" else None
