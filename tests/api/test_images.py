"""What a model takes as images: every kind gives the same answer as the file, and what is no image is refused."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rtk import api
from rtk.core.data.decode import Decoder
from rtk.core.errors import ImageError, RtkError, UsageError
from rtk.infer.fake import FakeBackend


@pytest.fixture
def fake() -> Iterator[api.Model]:
    """A model whose class is the sum of an image's bytes modulo ten."""
    backend = FakeBackend()
    with api.Model(backend, Decoder(backend.card.input, processes=0)) as model:
        yield model


@pytest.fixture
def pixels_HWC() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_kind_of_image_gives_the_answer_of_the_file(
    fake: api.Model, pixels_HWC: np.ndarray, tmp_path: Path
) -> None:
    import torch

    content = png(pixels_HWC)
    (tmp_path / "a.png").write_bytes(content)
    tensor_HWC = torch.from_numpy(pixels_HWC)
    with (tmp_path / "a.png").open("rb") as file:
        kinds: list[Any] = [
            tmp_path / "a.png", str(tmp_path / "a.png"), content, bytearray(content), memoryview(content), file,
            io.BytesIO(content), Image.fromarray(pixels_HWC), pixels_HWC, pixels_HWC[None], tensor_HWC,
            tensor_HWC[None].requires_grad_(False),
        ]  # fmt: skip
        answers = fake.classify(kinds)
    label = f"class {int(pixels_HWC.astype(int).sum()) % 10}"
    assert [(answer.label, answer.error) for answer in answers] == [(label, "")] * len(kinds)
    channels_first: list[Any] = [pixels_HWC.transpose(2, 0, 1), tensor_HWC.permute(2, 0, 1), pixels_HWC[..., 0]]
    first, second, grey = fake.classify(channels_first, layout="CHW")
    assert first.label == second.label == label
    assert grey.label == f"class {3 * int(pixels_HWC[..., 0].astype(int).sum()) % 10}"
    for one in kinds[6:9]:
        if isinstance(one, io.BytesIO):
            one.seek(0)
        assert fake(one).label == label


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_pillow_has_the_pixels_of_its_file(mode: str, channels: int) -> None:
    from rtk.core.card import Input

    random = np.random.default_rng(6)
    if mode == "I;16":
        picture = Image.fromarray(random.integers(0, 65_536, (40, 32), dtype=np.uint16))
    else:
        picture = Image.fromarray(random.integers(0, 256, (40, 32, 4), dtype=np.uint8), "RGBA").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if mode in ("CMYK", "LA") else "PNG", exif=exif)
    backend = FakeBackend(size=Input(24, 24, channels))
    with api.Model(backend, Decoder(backend.card.input, processes=0)) as model:
        opened = Image.open(io.BytesIO(buffer.getvalue()))
        of_file, of_picture = model.classify([buffer.getvalue(), opened])
        assert (of_picture.label, of_picture.error) == (of_file.label, "")
        assert opened.size == (32, 40) or opened.format == "TIFF"  # the user's stays; Pillow itself rotates TIFFs
        opened.load()


def test_an_image_of_pillow_that_cannot_be_read_has_an_error(fake: api.Model, pixels_HWC: np.ndarray) -> None:
    cut = Image.open(io.BytesIO(png(pixels_HWC)[:1_500]))
    long = Image.new("L", (10_000, 2))
    answers = fake.classify([cut, long, Image.fromarray(pixels_HWC)])
    assert "damaged image" in answers[0].error
    assert "too long and thin" in answers[1].error
    assert answers[2].error == ""


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_one_array_with_channels_first_is_never_three_grey_images(fake: api.Model, kind: str) -> None:
    import torch

    image: Any = np.zeros((3, 32, 32), np.uint8) if kind == "numpy" else torch.zeros(3, 32, 32, dtype=torch.uint8)
    for use in (fake, fake.classify):
        with pytest.raises(UsageError) as refused:
            use(image)
        assert str(refused.value) == (
            "image[0]: uint8 (3, 32, 32): expected H x W, H x W x C or N x H x W x C, with C 1, 3 or 4; it looks like "
            'CHW: add layout="CHW"'
        )
    assert fake(image, layout="CHW").error == ""
    with pytest.raises(UsageError, match='it looks like CHW: add layout="CHW"'):
        fake.classify(image[None])
    assert len(fake.classify(image[None], layout="CHW")) == 1


@pytest.mark.parametrize(
    ("image", "layout", "message"),
    [
        (np.zeros((32, 32, 3)), "HWC", r"float64 \(32, 32, 3\): expected uint8, 0 to 255; of pixels from 0 to 1, "
            r"\(255 \* images\).round\(\).astype\('uint8'\) makes that; .* do not normalise before"),
        (np.zeros((32, 32), np.float16), "HWC", "float16 .* expected uint8"),
        (np.zeros((32, 32), np.uint16), "HWC", r"uint16 .* scale them to that range"),
        (np.zeros((32, 32), bool), "HWC", r"bool .* 255 \* images.astype\('uint8'\) makes that"),
        (np.zeros((32, 32, 3), np.uint8), "CHW", 'expected H x W, C x H x W or .* looks like HWC: add layout="HWC"'),
        (np.zeros((10, 28, 28), np.uint8), "HWC", "for N grey images give a list of them"),
        (np.zeros((2, 8, 8, 2), np.uint8), "HWC", "name 1, 3 or 4 channels"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), "HWC", r"uint8 \(1, 2, 8, 8, 3\): expected H x W"),
        (np.zeros(3, np.uint8), "HWC", r"uint8 \(3,\): expected H x W"),
        (np.zeros((8, 8), np.uint8), "WHC", "layout 'WHC' is unknown; .*known: HWC, CHW"),
    ],
)  # fmt: skip
def test_arrays_of_another_type_or_layout_are_refused_with_what_to_do(
    fake: api.Model, image: np.ndarray, layout: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        fake.classify([image], layout=layout)
    assert "\n" not in str(refused.value)


def test_float_tensors_are_refused(fake: api.Model) -> None:
    import torch

    with pytest.raises(UsageError, match=r"image\[0\]: float32 \(3, 32, 32\): expected uint8"):
        fake(torch.zeros(3, 32, 32), layout="CHW")


def test_a_file_that_cannot_be_read_has_an_error_and_a_text_file_is_refused(fake: api.Model, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    closed = (tmp_path / "a.png").open("rb")
    closed.close()
    assert fake(closed).error == "cannot be read: read of closed file"
    assert fake(io.BytesIO()).error == "empty file"
    with pytest.raises(UsageError, match=r"image\[0\]: read\(\) of StringIO gives str; open it as 'rb'"):
        fake(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="int: expected a path, bytes"):
        fake.classify(3)  # type: ignore[arg-type]


def test_a_call_gives_one_answer_and_refuses_more_or_none(fake: api.Model, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(png(np.zeros((8, 8), np.uint8)))
    with pytest.raises(UsageError, match=r"more than one image in it, expected one; .* model.classify\(images\)"):
        fake(tmp_path)
    with pytest.raises(UsageError, match="no image in it"):
        fake(np.zeros((0, 8, 8, 3), np.uint8))
    assert fake(tmp_path / "a.png", top_k=3).label == "class 0"
    assert fake("missing.png").error == "no such file"


def test_a_generator_is_read_as_the_answers_are(fake: api.Model) -> None:
    made = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal made
        for made in range(1, 100_001):  # noqa: B007
            yield np.zeros((32, 32, 3), np.uint8)

    answers = fake.stream(images(), batch_size=4)
    assert [next(answers).label for _ in range(10)] == ["class 0"] * 10
    assert made < 1_000
    answers.close()


def test_the_errors_are_those_of_rtk(fake: api.Model) -> None:
    assert issubclass(UsageError, RtkError)
    assert issubclass(ImageError, RtkError)


def test_an_answer_as_a_dictionary_is_the_line_that_the_command_writes(fake: api.Model, tmp_path: Path) -> None:
    import json

    from rtk.infer.output.rows import lines

    answers = fake.classify([np.zeros((8, 8), np.uint8), "missing.png"], top_k=2)
    written = [json.loads(line) for line in lines(answers, "jsonl", top_k=2)]
    assert [answer.to_dict(top_k=2) for answer in answers] == written
    assert answers[1].to_dict() == {
        "file": "missing.png", "label": None, "index": None, "probability": None, "error": "no such file",
    }  # fmt: skip
    assert list(answers[0].to_dict())[5:] == ["label_2", "index_2", "probability_2"]


@pytest.mark.torch
def test_arrays_and_bytes_load_neither_pillow_nor_torch_before_they_are_needed(in_new_process: Any) -> None:
    printed = in_new_process(
        "import sys, numpy as np, rtk\nfrom rtk.api.images import image_entries\n"
        "found = list(image_entries([np.zeros((8, 8), np.uint8), b''], layout='HWC', max_pixels=100))\n"
        "print(len(found), 'torch' in sys.modules)"
    )
    assert printed == "2 False\n"
    assert "torch" in sys.modules
