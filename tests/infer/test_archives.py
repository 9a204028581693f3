"""Archives and arrays give the same images as files do, and malicious ones are refused."""

import gzip
import io
import itertools
import os
import random
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rtk.core.card import Input
from rtk.core.data.datasets import Split
from rtk.core.data.decode import decode_chunk
from rtk.core.data.images import model_image
from rtk.core.data.sources import archives
from rtk.core.data.sources.entry import Entry
from rtk.infer.sources import arrays
from rtk.infer.sources.listing import entries

SIZE = Input(32, 32, 3)


def png(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def files(shapes64: Split) -> dict[str, bytes]:
    """A WebDataset's members: images with their labels, and an unreadable image."""
    members: dict[str, bytes] = {}
    for number, image_HWC in enumerate(shapes64.images_NHWC[:20]):
        members[f"set/{number:04}.png"] = png(image_HWC)
        members[f"set/{number:04}.cls"] = b"3"
    return members | {"set/broken.JPG": b"no image"}


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("set/", b"")
        for name, content in members.items():
            archive.writestr(name, content)


def found(*paths: str | Path) -> dict[str, str]:
    """Each entry's name and error, and whether it can be decoded."""
    chunk = decode_chunk(list(entries(map(str, paths))), SIZE)
    return dict(zip(chunk.names, chunk.errors, strict=True))


# Archives.


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "A.TGZ", "a.tar.bz2", "a.tar.xz", "a.zip", "stored.zip"])
def test_images_in_an_archive_equal_the_single_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], shapes64: Split, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith(".zip"):
        write_zip(Path(name), files, zipfile.ZIP_STORED if name == "stored.zip" else zipfile.ZIP_DEFLATED)
    else:
        write_tar(Path(name), files, {"gz": "w:gz", "GZ": "w:gz", "z2": "w:bz2", "xz": "w:xz"}.get(name[-2:], "w"))
        if name == "A.TGZ":
            write_tar(Path(name), files, "w:gz")
    chunk = decode_chunk(list(entries([name])), SIZE)
    assert chunk.names == [f"{name}!/{member}" for member in files if not member.endswith(".cls")]
    assert chunk.errors == [""] * 20 + ["not an image that Pillow reads"]
    np.testing.assert_array_equal(chunk.images_NHWC, shapes64.images_NHWC[:20])


@pytest.mark.parametrize("name", ["BZ.png", "BZh9.png", "BZh9/AY&SY.png"])
@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_a_plain_tar_may_begin_with_any_name(tmp_path: Path, shapes64: Split, name: str, layout: int) -> None:
    info, content = tarfile.TarInfo(name), png(shapes64.images_NHWC[0])
    info.size = len(content)
    with tarfile.open(tmp_path / "a.tar", "w", format=layout) as archive:
        archive.addfile(info, io.BytesIO(content))
    assert found(tmp_path / "a.tar") == {f"{tmp_path}/a.tar!/{name}": ""}


def test_globs_and_standard_input_may_name_archives(tmp_path: Path, files: dict[str, bytes]) -> None:
    write_tar(tmp_path / "shard-000.tar", files)
    write_tar(tmp_path / "shard-001.tar", files)
    assert len(found(tmp_path / "shard-*.tar")) == 42
    stdin = io.BytesIO(os.fsencode(tmp_path / "shard-001.tar"))
    assert len(list(entries(["-"], stdin=stdin))) == 21


def test_an_archive_without_images_is_reported(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"notes.txt": b"x"})
    write_zip(tmp_path / "a.zip", {})
    assert set(found(tmp_path / "a.tar", tmp_path / "a.zip").values()) == {"no images in this archive"}


OUTSIDE = ["../up.png", "a/../../up.png", "/etc/evil.png", "..\\up.png", "C:\\evil.png", "\\\\host\\evil.png", ".."]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, shapes64: Split, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    members = dict.fromkeys([*OUTSIDE, "a..good.png", "a..b/c.png"], png(shapes64.images_NHWC[0]))
    (write_tar if kind == "tar" else write_zip)(path, members)
    reasons = found(path)
    assert [reasons.get(f"{path}!/{name}") for name in OUTSIDE] == ["refused: its name leads out of the archive"] * 7
    assert [name for name, error in reasons.items() if not error] == [f"{path}!/a..good.png", f"{path}!/a..b/c.png"]


def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, shapes64: Split) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for number, kind in enumerate([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S"]):
            info = tarfile.TarInfo(f"{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            if kind != b"S":
                archive.addfile(info)
        info = tarfile.TarInfo("good.png")
        content = png(shapes64.images_NHWC[0])
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    assert list(found(path).values()) == ["refused: a link"] * 2 + ["refused: not a plain file"] * 2 + [""]


def test_links_encryption_and_unbounded_methods_in_a_zip_are_refused(tmp_path: Path, shapes64: Split) -> None:
    path, content = tmp_path / "a.zip", png(shapes64.images_NHWC[0])
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("bz2.png", content, zipfile.ZIP_BZIP2)
        archive.writestr("secret.png", content)
        archive.writestr("good.png", content)
    raw = bytearray(path.read_bytes())
    central = raw.rindex(b"PK\1\2", 0, raw.rindex(b"secret.png"))
    raw[central + 8] |= 1
    path.write_bytes(raw)
    assert list(found(path).values()) == [
        "refused: a link",
        "refused: compression method 12; stored and deflated members are read",
        "refused: encrypted",
        "",
    ]


def test_a_zip_bomb_is_refused_and_the_other_members_are_read(tmp_path: Path, shapes64: Split) -> None:
    path = tmp_path / "a.zip"
    write_zip(path, {"bomb.bmp": bytes(30_000_000), "good.png": png(shapes64.images_NHWC[0])})
    reasons = list(found(path).values())
    assert reasons[0].startswith("refused: a compression bomb: ")
    assert reasons[0].endswith(" become 30,000,000")
    assert reasons[1] == ""


def test_members_above_the_size_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 20_000)
    content = random.Random(0).randbytes(30_000)
    write_zip(tmp_path / "a.zip", {"large.png": content})
    write_tar(tmp_path / "a.tar", {"large.png": content, "small.png": b"x"})
    reasons = found(tmp_path / "a.zip", tmp_path / "a.tar")
    assert list(reasons.values())[:2] == ["refused: 30,000 bytes; at most 20,000 are read"] * 2
    assert len(reasons) == 3


def test_a_tar_with_a_high_compression_ratio_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes64: Split
) -> None:
    monkeypatch.setattr(archives, "SMALL_STREAM_BYTES", 1 << 20)
    path = tmp_path / "a.tar.gz"
    write_tar(path, {"good.png": png(shapes64.images_NHWC[0]), "zeros.bin": bytes(5 << 20)}, "w:gz")
    reasons = found(path)
    assert reasons[f"{path}!/good.png"] == ""
    assert reasons[str(path)].startswith("refused: a compression bomb: ")


def test_a_tar_header_that_requests_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 7 << 30
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert found(path) == {str(path): "refused: its header asks for 7,516,192,768 bytes at once"}


@pytest.mark.parametrize("second", ["b.txt", "../b.png"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_a_tar_with_negative_sizes_ends(tmp_path: Path, second: str, kind: bytes, name: str) -> None:
    headers = [tarfile.TarInfo(member) for member in ("a.txt", second, "c.txt")]
    headers[2].type, headers[2].size = kind, -1024  # back to the second header
    content = b"".join(header.tobuf(tarfile.GNU_FORMAT) for header in headers)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    listed = list(itertools.islice(entries([str(tmp_path / name)]), 10))
    assert len(listed) < 10
    assert [entry.error[:17] for entry in listed if entry.name == str(tmp_path / name)] == ["damaged archive: "]


def test_sparse_members_long_names_and_all_sizes_do_not_affect_other_members(tmp_path: Path, shapes64: Split) -> None:
    sparse = tarfile.TarInfo("sparse.png")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 1024
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (4096, 1024)  # one piece: 1,024 bytes at byte 4,096
    header[483:495] = b"%011o\0" % 5120
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    members = {f"{'long' * 60}/{size}.txt": bytes(size) for size in (0, 1, 511, 512, 513)}
    image = png(shapes64.images_NHWC[0])
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{layout}.tar"
        with tarfile.open(path, "w", format=layout) as archive:
            for name, content in [*members.items(), ("ü" * 200 + ".png", image)]:
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(content), {"comment": "x" * 700}
                archive.addfile(info, io.BytesIO(content))
        path.write_bytes(bytes(header) + bytes(1024) + path.read_bytes())
        assert found(path) == {
            f"{path}!/sparse.png": "refused: not a plain file",
            f"{path}!/{'ü' * 200}.png": "",
        }


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_a_truncated_archive_is_reported_and_its_complete_images_are_right(
    tmp_path: Path, files: dict[str, bytes], shapes64: Split, name: str
) -> None:
    write = (
        write_zip
        if name == "a.zip"
        else lambda path, members: write_tar(path, members, "w" + name[5:].replace(".", ":"))
    )
    write(tmp_path / name, files)
    content = (tmp_path / name).read_bytes()
    end = len(content) if name != "a.tar" else content.rindex(b"no image") + 512
    for percent in range(0, 100, 5):
        (tmp_path / name).write_bytes(content[: end * percent // 100])
        chunk = decode_chunk(list(entries([str(tmp_path / name)])), SIZE)
        assert any(chunk.errors), percent
        np.testing.assert_array_equal(chunk.images_NHWC, shapes64.images_NHWC[: len(chunk.images_NHWC)])


def test_a_damaged_zip_member_does_not_affect_the_others(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "a.zip"
    write_zip(path, files, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(files["set/0003.png"]) + 60] ^= 0xFF
    path.write_bytes(content)
    reasons = found(path)
    assert reasons[f"{path}!/set/0003.png"].startswith("damaged archive member: Bad CRC-32")
    assert sum(bool(error) for error in reasons.values()) == 2  # and the member that is not an image


def test_files_that_only_look_like_archives_by_name_are_reported(tmp_path: Path) -> None:
    names = ["a.zip", "b.tar", "c.tar.gz", "d.npy", "e.npz", "f.bin", "g.idx", "h-images-idx3-ubyte.gz"]
    for name in names:
        (tmp_path / name).write_bytes(b"\x1f\x8bnothing of the kind")
    (tmp_path / "pipe.tar").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.npy")
    reasons = found(*(tmp_path / name for name in [*names, "pipe.tar", "fifo.npy", "gone.zip"]))
    assert all(reasons.values())
    assert list(reasons.values())[-3:] == ["no such file", "not a regular file", "no such file"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "npz", "npy", "idx"])
def test_damaged_archives_and_arrays_never_raise(
    tmp_path: Path, files: dict[str, bytes], shapes64: Split, kind: str
) -> None:
    path, dice = tmp_path / f"a.{kind}", random.Random(1)
    match kind:
        case "tar" | "tar.gz":
            write_tar(path, files, "w:gz" if kind == "tar.gz" else "w")
        case "zip":
            write_zip(path, files)
        case "npz":
            np.savez_compressed(path, x=shapes64.images_NHWC[:4], y=shapes64.labels_N)
        case "npy":
            np.save(path, shapes64.images_NHWC[:4])
        case "idx":
            path.write_bytes(b"\0\0\x08\3" + struct.pack(">3I", 4, 32, 96) + shapes64.images_NHWC[:4].tobytes())
    whole = path.read_bytes()
    for _ in range(3_000):
        content = bytearray(whole)
        for _ in range(dice.choice([1, 1, 2, 5, 50])):
            content[dice.randrange(min(len(content), dice.choice([64, 600, len(content)])))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice([len(content)] * 3 + [dice.randrange(len(content))])])
        assert sum(1 for _ in entries([str(path)])) < 10_000


# Arrays.


def pixels(*paths: Path) -> np.ndarray:
    images = [entry.content for entry in entries(map(str, paths)) if not entry.error]
    return np.stack([image for image in images if isinstance(image, np.ndarray)])


@pytest.mark.parametrize("block_bytes", [1, 5_000, 1 << 20])
def test_npy_gives_the_same_images_for_all_block_sizes(
    tmp_path: Path, shapes64: Split, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(arrays, "BLOCK_BYTES", block_bytes)
    np.save(tmp_path / "a.npy", shapes64.images_NHWC)
    np.testing.assert_array_equal(pixels(tmp_path / "a.npy"), shapes64.images_NHWC)
    assert [entry.name for entry in entries([str(tmp_path / "a.npy")])] == [f"{tmp_path}/a.npy[{k}]" for k in range(64)]


@pytest.mark.parametrize(
    ("shape", "each"),
    [
        ((5, 8, 9), (8, 9)),
        ((5, 8, 9, 4), (8, 9, 4)),
        ((5, 3, 8, 9), (8, 9, 3)),
        ((8, 9), (8, 9)),
        ((8, 9, 3), (8, 9, 3)),
    ],
)
def test_arrays_of_every_layout_are_read(tmp_path: Path, shape: tuple[int, ...], each: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", array)
    assert pixels(tmp_path / "a.npy").shape[1:] == each
    expected = array.transpose(0, 2, 3, 1) if shape == (5, 3, 8, 9) else array.reshape(-1, *each)
    np.testing.assert_array_equal(pixels(tmp_path / "a.npy"), expected)


def test_npz_gives_every_image_array_by_name_and_skips_labels(tmp_path: Path, shapes64: Split) -> None:
    path = tmp_path / "a.npz"
    labels = {"y": shapes64.labels_N, "z": shapes64.labels_N.astype(np.uint8)[:, None], "o": np.array([{}], object)}
    np.savez_compressed(path, x_train=shapes64.images_NHWC[:3], x_test=shapes64.images_NHWC[3:5], **labels)
    names = [f"{path}!/x_train[{k}]" for k in range(3)] + [f"{path}!/x_test[{k}]" for k in range(2)]
    assert [entry.name for entry in entries([str(path)])] == names
    np.testing.assert_array_equal(pixels(path), shapes64.images_NHWC[:5])


def test_an_unreadable_array_of_a_npz_does_not_affect_the_others(tmp_path: Path, shapes64: Split) -> None:
    path, images = tmp_path / "a.npz", shapes64.images_NHWC[:2]
    turned, wrong_shape = np.asfortranarray(images), np.zeros((3, 5, 7, 9), np.uint8)
    np.savez(path, empty=np.zeros((0, 32, 32, 3), np.uint8), wrong=wrong_shape, turned=turned, cut=images, good=images)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    members["cut.npy"] = members["cut.npy"][:-1]
    write_zip(path, {"text.npy": b"no array"} | members)
    reasons = [(entry.name.removeprefix(f"{path}!/"), entry.error[:27]) for entry in entries([str(path)])]
    assert reasons == [
        ("text", "damaged: the magic string i"),
        ("empty", "an array of shape (0, 32, 3"),
        ("wrong", "an array of shape (3, 5, 7,"),
        ("turned", "an array in Fortran order; "),
        ("cut[0]", ""),
        ("cut", "truncated: 2 images expecte"),
        ("good[0]", ""),
        ("good[1]", ""),
    ]


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "a.idx"])
def test_idx_files_plain_and_gzipped(tmp_path: Path, name: str) -> None:
    images = np.random.default_rng(1).integers(0, 256, (7, 28, 28), np.uint8)
    content = b"\0\0\x08\3" + struct.pack(">3I", 7, 28, 28) + images.tobytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    np.testing.assert_array_equal(pixels(tmp_path / name), images)


@pytest.mark.parametrize("labels", [1, 2])
def test_cifar_10_and_100_binary_files_are_read(tmp_path: Path, shapes64: Split, labels: int) -> None:
    planes = shapes64.images_NHWC.transpose(0, 3, 1, 2).reshape(64, 3072)
    np.hstack([np.zeros((64, labels), np.uint8), planes]).tofile(tmp_path / "test.bin")
    np.testing.assert_array_equal(pixels(tmp_path / "test.bin"), shapes64.images_NHWC)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "an array of float32, expected uint8"),
        (np.array([{}], object), "an array of object, expected uint8"),
        (np.zeros((2, 4, 4, 5), np.uint8), "an array of shape (2, 4, 4, 5), expected N x H x W x C"),
        (np.zeros((0, 4, 4, 3), np.uint8), "an array of shape (0, 4, 4, 3), expected"),
        (np.zeros(9, np.uint8), "an array of shape (9,), expected"),
        (np.zeros((2, 3, 4), np.uint8).T, "an array in Fortran order"),
    ],
)
def test_arrays_that_are_not_images_are_described(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "a.npy", array)
    (entry,) = entries([str(tmp_path / "a.npy")])
    assert reason in entry.error


def test_a_truncated_array_gives_its_complete_images_and_reports_the_rest(tmp_path: Path, shapes64: Split) -> None:
    path = tmp_path / "a.npy"
    np.save(path, shapes64.images_NHWC)
    path.write_bytes(path.read_bytes()[: 128 + 10 * 3072 + 5])
    *images, last = entries([str(path)])
    assert len(images) == 10
    assert last == Entry(str(path), "truncated: 64 images expected, 10 found")


def test_a_data_set_split_is_read_by_name(shapes64: Split, tmp_path: Path) -> None:
    found = list(entries(["shapes:test"]))
    assert len(found) == 2_000
    assert found[17].name == "shapes:test[17]"
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin").touch()
    (missing,) = entries(["cifar10:train"], data_dir=tmp_path)
    assert "incomplete: data_batch_2.bin" in missing.error
    assert list(entries(["mnist:test"])) == [Entry("mnist:test", "no such file")]


@pytest.mark.data
def test_the_official_test_split_is_the_same_from_file_and_by_name(real_data: Path) -> None:
    by_name = list(entries(["cifar10:test"], data_dir=real_data))
    by_file = list(entries([str(real_data / "cifar-10-batches-bin" / "test_batch.bin")]))
    assert len(by_name) == len(by_file) == 10_000
    np.testing.assert_array_equal(by_name[9_999].content, by_file[9_999].content)
    packed = list(entries([str(real_data / "fashion-mnist" / "t10k-images-idx3-ubyte.gz")]))
    assert len(packed) == 10_000


def test_images_in_an_archive_are_scaled_like_files(tmp_path: Path) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (80, 50, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(png(photo))
    write_tar(tmp_path / "a.tar", {"a.png": png(photo)})
    chunk = decode_chunk(list(entries([str(tmp_path / "a.tar")])), SIZE)
    np.testing.assert_array_equal(chunk.images_NHWC[0], model_image(tmp_path / "a.png", SIZE))
