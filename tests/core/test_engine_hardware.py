"""Facts from the driver, the choice of TensorRT, and the count of data types."""

import json
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fakes.tensorrt_stand_in import H100, RTX4090, VERSIONS, Script, Stage, staged
from rtk.core.errors import BackendError, UnknownNameError, UsageError
from rtk.core.nvidia import driver as cuda
from rtk.core.nvidia.flavor import FLAVORS, choose_flavor, collected_errors, logger_of
from rtk.core.nvidia.layer_types import layers_of_inspector, precision_of_network


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    yield from staged(monkeypatch)


# The driver.


def test_a_gpu_is_described_without_a_context(stage: Stage) -> None:
    library = stage.libcuda(H100, replace(RTX4090, index=1), driver=12080)
    assert cuda.gpu_count() == 2
    assert cuda.gpu(0) == H100
    assert cuda.gpu(1).name == "NVIDIA GeForce RTX 4090"
    assert cuda.driver_cuda() == (12, 8)
    assert cuda.no_gpu_reason() == ""
    assert library.pushed == []


def test_the_error_for_a_missing_gpu_has_the_number_of_gpus(stage: Stage) -> None:
    stage.libcuda(H100)
    with pytest.raises(BackendError, match=r"cuda:1: this machine has 1 CUDA GPU"):
        cuda.gpu(1)


def test_without_a_driver_the_reason_says_so(stage: Stage) -> None:
    stage.monkeypatch.setattr(cuda, "_libcuda", lambda: None)
    assert cuda.gpu_count() == 0
    assert cuda.driver_cuda() is None
    assert "no NVIDIA driver" in cuda.no_gpu_reason()


@pytest.mark.parametrize(
    ("init", "reason"), [(100, "no GPU"), (803, "restart the machine"), (999, "unknown"), (3, "CUDA error 3")]
)
def test_a_driver_that_does_not_start_has_a_reason(stage: Stage, init: int, reason: str) -> None:
    stage.libcuda(H100, init=init)
    assert cuda.gpu_count() == 0
    assert reason in cuda.no_gpu_reason()


def test_without_a_visible_gpu_the_reason_names_the_variable_that_hides_gpus(stage: Stage) -> None:
    stage.libcuda()
    assert "CUDA_VISIBLE_DEVICES" in cuda.no_gpu_reason()


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:3", 3)])
def test_a_device_name_is_an_index(device: str, index: int) -> None:
    assert cuda.device_index(device) == index


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:x", "cuda:-1", "gpu", "cuda:²", ""])
def test_other_device_names_are_usage_errors(device: str) -> None:
    with pytest.raises(UsageError, match="cuda or cuda:N"):
        cuda.device_index(device)


def test_the_primary_context_is_popped_after_an_error_and_stays_retained(stage: Stage) -> None:
    library = stage.libcuda(H100)
    for _ in range(2):
        with pytest.raises(ValueError, match="planted"), cuda.UsingGpu(0):
            raise ValueError("planted")
    assert library.pushed == ["retain", "push", "pop", "push", "pop"]


@pytest.mark.parametrize(
    ("status", "mode", "reason"),
    [(46, 0, "another process"), (101, 3, "another process"), (2, 0, "out of GPU memory"), (700, 0, "CUDA error 700")],
)
def test_the_error_for_a_gpu_without_context_has_the_reason(stage: Stage, status: int, mode: int, reason: str) -> None:
    library = stage.libcuda(replace(H100, compute_mode=mode), retain=status)
    with pytest.raises(BackendError, match=reason), cuda.UsingGpu(0):
        pass
    assert library.pushed == ["retain"]


# The flavour.


def test_tensorrt_is_chosen_if_it_and_a_gpu_are_there(stage: Stage) -> None:
    stage.tensorrt("tensorrt 11")
    stage.tensorrt("tensorrt-rtx")
    stage.libcuda()
    assert choose_flavor().name == "tensorrt-rtx"
    stage.libcuda(H100)
    assert choose_flavor().name == "tensorrt"
    assert choose_flavor("tensorrt-rtx").name == "tensorrt-rtx"


def test_without_a_gpu_and_tensorrt_rtx_the_error_names_tensorrt_rtx(stage: Stage) -> None:
    stage.libcuda()
    stage.tensorrt("tensorrt 11")
    stage.without("tensorrt_rtx")
    with pytest.raises(BackendError, match=r"needs a GPU to build.*pip install tensorrt-rtx"):
        choose_flavor()


@pytest.mark.parametrize(("driver", "package"), [(13000, "tensorrt"), (12080, "tensorrt-cu12")])
def test_without_tensorrt_the_install_command_fits_driver_and_python(stage: Stage, driver: int, package: str) -> None:
    stage.libcuda(H100, driver=driver)
    stage.without("tensorrt_rtx")
    stage.without("tensorrt")
    with pytest.raises(BackendError) as caught:
        choose_flavor()
    assert f"pip install {package} (for Python {platform.python_version()}, CUDA {driver // 1000}." in str(caught.value)


def test_the_error_for_a_requested_flavor_that_is_missing_names_its_package(stage: Stage) -> None:
    stage.without("tensorrt")
    with pytest.raises(BackendError, match=r"--flavor tensorrt: not installed; pip install tensorrt"):
        choose_flavor("tensorrt")


def test_the_error_for_an_unknown_flavor_suggests_a_known_one() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean tensorrt-rtx\?"):
        choose_flavor("tensorrt-rxt")


def test_the_error_for_a_library_that_cannot_be_loaded_is_one_line(stage: Stage) -> None:
    def fail(name: str) -> None:
        raise OSError("libnvinfer.so.11: cannot open\nshared object file")

    stage.tensorrt("tensorrt 11")
    stage.monkeypatch.setattr("rtk.core.nvidia.flavor.importlib.import_module", fail)
    with pytest.raises(BackendError, match=r"tensorrt is installed but cannot be loaded \(libnvinfer.* shared object"):
        FLAVORS["tensorrt"].load()


def test_one_logger_collects_the_errors_of_each_block_separately(stage: Stage) -> None:
    trt = stage.tensorrt("tensorrt 11")
    logger = logger_of(trt)
    assert logger_of(trt) is logger
    with collected_errors() as outer:
        logger.log(trt.ILogger.Severity.ERROR, "first\nline")
        with collected_errors() as inner:
            logger.log(trt.ILogger.Severity.INTERNAL_ERROR, "second")
        logger.log(trt.ILogger.Severity.WARNING, "not an error")
        logger.log(trt.ILogger.Severity.ERROR, "first\nline")
    assert outer.reason("none") == "first line"
    assert inner.reason("none") == "second"


# Data types.

CONV, PRODUCT = "CONVOLUTION", "MATRIX_MULTIPLY"


@pytest.mark.parametrize("kind", VERSIONS)
@pytest.mark.parametrize(
    ("products", "label"),
    [
        ([(CONV, "FLOAT"), (PRODUCT, "FLOAT")], "fp32"),
        ([(CONV, "HALF"), (PRODUCT, "HALF")], "fp16"),
        ([(CONV, "BF16")], "bf16"),
        ([(CONV, "INT8"), (CONV, "INT8"), (PRODUCT, "FLOAT")], "int8+fp32"),
        ([(CONV, "FLOAT"), (PRODUCT, "HALF")], "fp32+fp16"),
        ([], "none"),
    ],
)
def test_the_label_has_the_data_types_of_convolutions_and_products(
    stage: Stage, kind: str, products: list[tuple[str, str]], label: str
) -> None:
    trt = stage.tensorrt(kind, Script(products=products))
    assert precision_of_network(trt.INetworkDefinition()).label == label


def test_a_convolution_with_only_one_dequantised_input_is_not_int8(stage: Stage) -> None:
    trt = stage.tensorrt("tensorrt 11", Script(products=[(CONV, "INT8")]))
    network = trt.INetworkDefinition()
    (product,) = [layer for layer in network._layers if layer.type.name == CONV]
    product._args[1][1] = trt.ITensor("float weights", trt.DataType.FLOAT)
    assert precision_of_network(network).products == {"fp32": 1}


def test_the_inspector_output_of_tensorrt_10_and_11_is_read() -> None:
    ten = [
        {"Name": "a", "Outputs": [{"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}]},
        {"Name": "b", "Outputs": [{"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}]},
        {"Name": "c", "Outputs": [{"Format/Datatype": "Row major linear BFloat16 format"}]},
        {"Name": "d", "Outputs": []},
    ]
    eleven = [
        {"Name": "a", "Outputs": [{"Format": "Row major linear FP32 format (kLINEAR)", "DataType": "Half"}]},
        {"Name": "b", "Outputs": [{"Format": "kLINEAR", "DataType": "Float"}]},
    ]
    assert layers_of_inspector(json.dumps({"Layers": ten})) == {"fp16": 1, "int8": 1, "bf16": 1}
    assert layers_of_inspector(json.dumps({"Layers": eleven})) == {"fp16": 1, "fp32": 1}


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": ["a", "b"]}', '{"other": 1}'])
def test_inspector_output_with_only_layer_names_counts_no_layers(text: str) -> None:
    assert layers_of_inspector(text) == {}


def test_errors_of_two_threads_at_the_same_time_do_not_mix(stage: Stage) -> None:
    trt = stage.tensorrt("tensorrt 11")
    logger, severity = logger_of(trt), trt.ILogger.Severity.ERROR
    both_open, both_logged = threading.Barrier(2, timeout=60), threading.Barrier(2, timeout=60)

    def task(name: str) -> str:
        with collected_errors() as log:
            both_open.wait()
            logger.log(severity, f"error of {name}")
            both_logged.wait()
        return log.reason("none")

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(task, ["one", "two"])) == ["error of one", "error of two"]


def test_an_error_that_a_thread_of_tensorrt_logs_belongs_to_the_open_task(stage: Stage) -> None:
    trt = stage.tensorrt("tensorrt 11")
    logger, severity = logger_of(trt), trt.ILogger.Severity.ERROR
    with collected_errors() as log, ThreadPoolExecutor(1) as pool:
        pool.submit(logger.log, severity, "a kernel fails").result()
    with collected_errors() as later:
        pass
    assert (log.reason("none"), later.reason("none")) == ("a kernel fails", "none")
