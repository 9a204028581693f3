"""Trainings on images that stay in a memory-mapped file: the same weights, and memory that does not grow with them."""

import json
import mmap
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.train_runs import assert_same_runs, history, in_child, tiny, together
from rtk.core.card import Input
from rtk.core.data import mapped_images
from rtk.core.data.datasets import Dataset, Split
from rtk.core.data.mapped_images import PageRelease, mapped_file
from rtk.core.data.open_dataset import open_dataset
from rtk.core.data.own.listing import SplitName
from rtk.core.models.model import tensor_from_images
from rtk.core.models.normalise import build_normalise
from rtk.train import run as loop
from rtk.train.augment.augmenter import channel_means
from rtk.train.config import TrainConfig
from rtk.train.data.statistics import learn_maps, preprocessing_of
from rtk.train.data.streamed_images import StreamedImages, images_on
from rtk.train.distributed.process_group import join_process_group
from rtk.train.run import resume, train
from rtk.train.run_folder import RunFolder
from rtk.train.stop_signals import Stopped

CPU = torch.device("cpu")


def mapped(images_NHWC: Any, file: Path) -> "np.memmap[Any, Any]":
    """The images in a file, memory-mapped for reading."""
    np.save(file, images_NHWC)
    found: np.memmap[Any, Any] = np.load(file, mmap_mode="r")
    return found


def open_mapped(name: str, *, data_dir: Path | None = None, options: object = None) -> Dataset:
    """The data set with memory-mapped images; the training images are a selection of a larger array."""
    dataset = open_dataset(name, data_dir=data_dir)

    def read(split_name: SplitName) -> Split:
        split = dataset.split(split_name)
        folder = Path(name).parent / "mapped"
        folder.mkdir(exist_ok=True)
        file = folder / f"{split_name}.npy"
        if split_name == "test":
            if not file.exists():
                np.save(file, split.images_NHWC)
            return Split(np.load(file, mmap_mode="r"), split.labels_N)
        order = np.random.default_rng(5).permutation(len(split))
        if not file.exists():
            np.save(file, np.concatenate([split.images_NHWC[order], 255 - split.images_NHWC]))
        return Split(np.load(file, mmap_mode="r"), split.labels_N, np.argsort(order))

    return Dataset(dataset.name, dataset.classes, read)


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "write_curves", lambda *arguments, **options: None)


CHANGES: list[dict[str, Any]] = [
    {"recipe": "rtk", "holdout": 6, "epochs": 2, "augment": ("crop=2", "flip=alternate", "cutout=4")},
    {"recipe": "keras", "epochs": 2, "batch_size": 7, "augment": ("mixup=0.3", "fill=reflect"), "train_images": 20},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: changes["recipe"])
def test_memory_mapped_images_train_to_the_same_weights(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole = train(tiny(class_folders, tmp_path / "whole", **changes))
    monkeypatch.setattr(loop, "open_dataset", open_mapped)
    monkeypatch.setattr(StreamedImages, "_read", counted := Counted(StreamedImages._read))
    assert_same_runs(whole.run_dir, train(tiny(class_folders, tmp_path / "mapped", **changes)).run_dir)
    assert counted.images >= sum(row["images"] for row in whole.history)


class Counted:
    """Counts the images that are read."""

    def __init__(self, read: Any) -> None:
        self.read, self.images = read, 0

    def __get__(self, images: StreamedImages, kind: type) -> Any:
        def counting(index_B: Any) -> torch.Tensor:
            self.images += len(index_B)
            return self.read(images, index_B)

        return counting


def test_a_stop_within_an_epoch_changes_nothing_for_memory_mapped_images(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(class_folders, tmp_path / "whole", epochs=2))
    monkeypatch.setattr(loop, "open_dataset", open_mapped)
    with monkeypatch.context() as patched:
        patched.setattr(loop._Run, "_after_step", _stop_in_step(5))
        with pytest.raises(Stopped):
            train(tiny(class_folders, tmp_path / "stopped", epochs=2))
    assert_same_runs(whole.run_dir, resume(tmp_path / "stopped").run_dir)


def _stop_in_step(number: int) -> Any:
    original, steps = loop._Run._after_step, [0]

    def after_step(self: Any, images: int) -> None:
        steps[0] += 1
        if steps[0] == number:
            self.stop_request.number = 2
            self.trainer.requests = loop.StepRequests(stop=True)
        original(self, images)

    return after_step


def _train_both(folder: Path, out: Path) -> None:
    scores = loop._Run._scores
    right = {1: 3, 2: 3}  # no better: both processes stop after the second of three epochs

    def scripted(run: Any, *, is_last: bool) -> Any:
        return {
            **(found := scores(run, is_last=is_last)),
            "holdout": replace(found["holdout"], correct=right[run.trainer.epoch]),
        }

    loop._Run._scores = scripted  # type: ignore[method-assign]
    with join_process_group():  # one group for both runs
        for name, opened in (("whole", open_dataset), ("mapped", open_mapped)):
            loop.open_dataset = opened  # type: ignore[attr-defined]
            train(tiny(folder, out / name, holdout=6, patience=1, class_weights="balanced"))


@pytest.mark.slow
def test_two_processes_train_on_memory_mapped_images_as_on_images_in_memory(
    class_folders: Path, tmp_path: Path
) -> None:
    assert together(2, _train_both, class_folders, tmp_path, timeout_s=120) == [0, 0]
    assert_same_runs(tmp_path / "whole", tmp_path / "mapped")
    assert [row.get("stopped_early") for row in history(tmp_path / "mapped")] == [None, True]


# Statistics.


@pytest.fixture
def both(tmp_path: Path) -> tuple[Split, Split]:
    """300 images in memory, and the same as a shuffled selection of a memory-mapped file."""
    random = np.random.default_rng(1)
    images_NHWC, labels_N = random.integers(0, 256, (300, 8, 6, 3), dtype=np.uint8), random.integers(0, 4, 300)
    order = random.permutation(300)
    return Split(images_NHWC, labels_N), Split(
        mapped(images_NHWC[order], tmp_path / "images.npy"), labels_N, np.argsort(order)
    )


@pytest.mark.parametrize("name", ["standard", "zca"])
def test_statistics_in_parts_are_exactly_those_of_the_whole(
    both: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(mapped_images, "PART_BYTES", 7 * 8 * 6 * 3)  # parts of seven images
    recipe, found = TrainConfig("resnet8v1", preprocess=name).resolved_recipe, []
    for split in both:
        preprocessing = preprocessing_of(recipe, split)
        normalise = build_normalise(preprocessing, Input(8, 6, 3))
        learn_maps(normalise, preprocessing, split)
        found.append((preprocessing, normalise.state_dict()))
    (one, maps), (other, other_maps) = found
    assert one == other
    assert all(torch.equal(maps[key], other_maps[key]) for key in maps)
    pixels_NHWC = both[0].images_NHWC / 255
    assert one.mean == pytest.approx(pixels_NHWC.mean((0, 1, 2)), rel=1e-12)
    if name == "zca":
        mean_CHW = (both[0].images_NHWC.mean(axis=0, dtype=np.float64) / 255).transpose(2, 0, 1)
        assert torch.equal(maps["mean"].cpu(), torch.from_numpy(mean_CHW).to(maps["mean"]))
    else:
        assert one.deviation == pytest.approx(pixels_NHWC.std((0, 1, 2)), rel=1e-12)


def test_the_mean_colour_is_the_same_however_images_are_kept(both: tuple[Split, Split]) -> None:
    expected = np.round(both[0].images_NHWC.mean((0, 1, 2), dtype=np.float64)).astype(int).tolist()
    resident, streamed = (images_on(CPU, split) for split in both)
    assert isinstance(resident, torch.Tensor)
    assert isinstance(streamed, StreamedImages)
    assert channel_means(resident).tolist() == channel_means(streamed).tolist() == expected


# Which images stay in place.


def test_a_selection_of_memory_mapped_images_copies_none(both: tuple[Split, Split]) -> None:
    whole, split = both
    chosen = split.take(np.array([7, 3, 250]))
    assert chosen.stored_NHWC is split.stored_NHWC
    assert chosen.take(np.array([2, 0])).images_NHWC.tolist() == whole.images_NHWC[[250, 7]].tolist()
    assert chosen.head(2).images_NHWC.tolist() == whole.images_NHWC[[7, 3]].tolist()
    assert chosen.labels_N.tolist() == whole.labels_N[[7, 3, 250]].tolist()


def test_large_images_in_memory_stay_in_place_too(both: tuple[Split, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    split = both[0]
    assert not split.stays_in_place
    assert split.take(np.arange(3)).index_N is None
    monkeypatch.setattr(mapped_images, "LARGE_BYTES", split.images_NHWC.nbytes - 1)
    assert split.stays_in_place
    assert split.take(np.arange(3)).stored_NHWC is split.stored_NHWC


def test_pages_that_were_read_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_images, "RELEASE_BYTES", 3 * mapped_images.READ_AROUND_BYTES)
    array, given_back = mapped(np.zeros((9, 4, 4, 1), np.uint8), tmp_path / "images.npy"), list[int]()

    class Map:
        def madvise(self, option: int) -> None:
            given_back.append(option)

    release = PageRelease(array[2:].view(np.ndarray))
    assert release._map is mapped_file(array).base  # type: ignore[union-attr]
    release._map = Map()  # type: ignore[assignment]
    for _ in range(7):
        release.count(1)
    assert given_back == [mmap.MADV_DONTNEED] * 2
    assert PageRelease(np.zeros((9, 4, 4, 1), np.uint8))._map is None


def test_a_tensor_of_images_that_may_only_be_read_is_a_copy(both: tuple[Split, Split]) -> None:
    in_memory, stored = both[0].images_NHWC, both[1].stored_NHWC
    assert not stored.flags.writeable
    copied = tensor_from_images(stored)
    assert copied.numpy().tolist() == stored.tolist()
    assert copied.numpy().flags.writeable
    assert tensor_from_images(in_memory).data_ptr() == in_memory.ctypes.data


# Memory.

SIDE = 256


def _train_on_sparse_file(folder: Path, count: int) -> None:
    """Train on a file without content; write the most memory after any step, in KiB: its own, and that of the file."""
    mapped_images.RELEASE_BYTES = 64 * 2**20
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(count * SIDE * SIDE * 3)
    labels_N = np.arange(count) % 2

    def read(name: SplitName) -> Split:
        part = slice(0, count) if name == "train" else slice(0, 64)
        return Split(np.memmap(path, np.uint8, "r", shape=(count, SIDE, SIDE, 3))[part], labels_N[part])

    original, most, before = loop._Run._after_step, [0, 0], _own_kib()

    def after_step(run: Any, images: int) -> None:
        most[:] = max(most[0], _own_kib() - before), max(most[1], _mapped_kib(path))
        original(run, images)

    loop._Run._after_step = after_step  # type: ignore[method-assign]
    loop.open_dataset = lambda name, data_dir=None, options=None: Dataset("sparse", ("a", "b"), read)  # type: ignore[attr-defined]
    RunFolder.write_curves = lambda *arguments, **options: None  # type: ignore[method-assign]
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 8, "precision": "fp32", "compile": "off", "holdout": 64}
    train(TrainConfig("resnet8v1", recipe="quick", out=folder / "run", resize=8, **settings))
    (folder / "most").write_text(json.dumps(most))


def _own_kib() -> int:
    """The memory of this process without pages of files."""
    return int(re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[0])


def _mapped_kib(path: Path) -> int:
    """The pages of the file that count as memory of this process."""
    entries = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    pages = [re.findall(r"^Rss:\s+(\d+) kB", entry, re.MULTILINE)[0] for entry in entries if f"{path}\n" in entry]
    assert pages  # the file is mapped
    return sum(map(int, pages))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    count = 2_048
    process = in_child(_train_on_sparse_file, tmp_path, count)
    process.join(300)
    assert process.exitcode == 0
    own_mib, mapped_mib = (kib >> 10 for kib in json.loads((tmp_path / "most").read_text()))
    assert count * SIDE * SIDE * 3 >> 20 == 384
    # A batch has 1.5 MiB, and 6 MiB in fp32, of which some copies exist, more or less of them free but not given back.
    # Pages are given back after 32 images; the system maps at most the huge page of 2 MiB around each of them, or two
    # if the image lies in two, and one batch more is being read.
    assert mapped_mib <= 2 * 64 + 2 * 16
    assert own_mib <= 192
