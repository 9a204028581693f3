"""The Python API: answers line up, threads get their own answers, errors are RtkErrors, and the examples run."""

import doctest
import itertools
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rtk
from PIL import Image
from rtk import api
from rtk.core import zoo
from rtk.core.data.datasets import Split
from rtk.core.data.decode import Decoder
from rtk.core.errors import ArtifactError, BackendError, UnknownNameError
from rtk.infer.fake import FakeBackend


@pytest.fixture
def fake() -> api.Model:
    """A model whose class is the sum of an image's bytes modulo ten."""
    backend = FakeBackend(delay_s=0.001)
    return api.Model(backend, Decoder(backend.card.input, processes=0))


def expected(image: np.ndarray) -> str:
    return f"class {int(image.astype(int).sum()) % 10}"


def test_the_examples_in_the_documentation_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint_path: Path, graph_path: Path
) -> None:
    from rtk.core.artifacts.checkpoint import load_checkpoint

    shutil.copy(checkpoint_path, tmp_path / "resnet20v1-cifar10.pt")
    shutil.copy(graph_path, tmp_path / "resnet20v1-cifar10.onnx")
    (tmp_path / "resnet20v1-cifar10.json").write_text(load_checkpoint(checkpoint_path).card.to_json())
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(api)
    assert result.attempted == 10
    assert result.failed == 0


def test_importing_rtk_loads_nothing_heavy(in_new_process: Callable[[str], str]) -> None:
    printed = in_new_process(
        "import sys, rtk\nprint(sorted({'numpy', 'PIL', 'torch', 'onnxruntime', 'rtk.api'} & set(sys.modules)))\n"
        "rtk.load\nprint('rtk.api' in sys.modules, 'torch' in sys.modules, 'load' in dir(rtk))"
    )
    assert printed.splitlines() == ["[]", "True False True"]
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        rtk.lode  # noqa: B018


def test_paths_bytes_and_arrays_are_classified_in_order(fake: api.Model, shapes64: Split, tmp_path: Path) -> None:
    images = shapes64.images_NHWC
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    content = (tmp_path / "0.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.png", content)
        archive.writestr("b.png", b"broken")
    answers = fake.classify([tmp_path / "0.png", images[1], content, images[2:5], str(tmp_path / "two.zip"), b"", "no"])
    assert [answer.file.removeprefix(f"{tmp_path}/") for answer in answers] == [
        "0.png", "image[1]", "image[2]", "image[3][0]", "image[3][1]", "image[3][2]",
        "two.zip!/a.png", "two.zip!/b.png", "image[5]", "no",
    ]  # fmt: skip
    labels = [expected(images[k]) for k in (0, 1, 0, 2, 3, 4, 0)]
    assert [answer.label for answer in answers] == [*labels, "", "", ""]
    assert [bool(answer.error) for answer in answers] == [False] * 7 + [True] * 3
    assert answers[8].error == "empty file"
    assert not any(answer.entry for answer in answers)  # the list keeps no image in memory


def test_one_image_needs_no_list(fake: api.Model, shapes64: Split) -> None:
    (answer,) = fake.classify(shapes64.images_NHWC[7], top_k=99)
    assert answer.label == expected(shapes64.images_NHWC[7])
    assert len(answer.predictions) == 10
    assert answer.probability == pytest.approx(np.exp(10) / (np.exp(10) + 9))


def test_pixels_of_other_sizes_are_scaled_and_an_empty_image_has_an_error(fake: api.Model) -> None:
    grey, empty = np.full((50, 40), 9, np.uint8), np.zeros((0, 4, 3), np.uint8)
    answers = fake.classify([grey, empty])
    assert answers[0].label == "class 8"  # 9 x 3 x 1,024 = 27,648
    assert "an empty image" in answers[1].error


def test_several_threads_get_their_own_answers(fake: api.Model, shapes64: Split) -> None:
    wrong: list[int] = []

    def ask(seed: int) -> None:
        chosen = np.random.default_rng(seed).integers(0, 64, 40)
        answers = fake.classify([shapes64.images_NHWC[k] for k in chosen], batch_size=3)
        labels = [expected(shapes64.images_NHWC[k]) for k in chosen]
        wrong.extend([seed] * ([answer.label for answer in answers] != labels))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_logits_equal_the_backends_even_above_its_largest_batch(shapes64: Split) -> None:
    backend = FakeBackend(max_batch=5)
    model = api.Model(backend, Decoder(backend.card.input, processes=0))
    np.testing.assert_array_equal(model.logits(shapes64.images_NHWC), FakeBackend()(shapes64.images_NHWC))
    assert model.logits(shapes64.images_NHWC[:0]).shape == (0, 10)
    with pytest.raises(BackendError, match=r"expected uint8 \(N, 32, 32, 3\)"):
        model.logits(shapes64.images_NHWC[:, :16])


def test_a_closed_model_raises_a_backend_error(fake: api.Model, shapes64: Split) -> None:
    with fake:
        pass
    fake.close()
    for use in (fake.classify, fake.logits):
        with pytest.raises(BackendError, match="the model is closed"):
            use(shapes64.images_NHWC[:1])


def test_closing_ends_the_call_of_another_thread_with_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    decoder = Decoder(backend.card.input, processes=1)
    running, closing, errors = threading.Event(), threading.Event(), list[BaseException]()

    def images() -> Iterator[np.ndarray]:
        for number in range(2_000):
            if number == 200:
                running.set()
                closing.wait(60)
            yield np.zeros((8, 8, 3), np.uint8)

    def ask() -> None:
        try:
            model.classify(images())
        except BaseException as error:
            errors.append(error)

    def signalling(close: Callable[[], None]) -> Callable[[], None]:
        return lambda: (close(), closing.set())[0]

    for part in (backend, decoder):
        monkeypatch.setattr(part, "close", signalling(part.close))
    model = api.Model(backend, decoder)
    with decoder:
        decoder.start()
        thread = threading.Thread(target=ask)
        thread.start()
        assert running.wait(60)
        model.close()
        thread.join(60)
        assert [type(error) for error in errors] == [BackendError]
        assert decoder.process_ids == []


def test_unknown_names_and_missing_files_raise_rtk_errors(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="model 'resnet99'"):
        rtk.load("resnet99")
    with pytest.raises(ArtifactError, match="no such graph"):
        rtk.load(tmp_path / "gone.onnx")


def test_what_cannot_be_classified_is_a_usage_error(fake: api.Model) -> None:
    with pytest.raises(rtk.UsageError, match=r"image\[0\]: int; expected a path, bytes, an open file"):
        fake.classify([3])  # type: ignore[list-item]
    for name, value in itertools.product(("top_k", "batch_size"), (0, -1, 1.5, "3", None)):
        with pytest.raises(rtk.UsageError, match=rf"^{name}: {value!r}, expected a whole number from 1 on$"):
            fake.classify([], **{name: value})
    assert len(fake(np.zeros((32, 32, 3), np.uint8), top_k=np.int64(3)).predictions) == 3
