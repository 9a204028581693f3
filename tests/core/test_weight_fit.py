"""Weights under the names of a network: prefixes, averages, number types, and what does not fit."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from rtk.core.artifacts.weight_files import StateDict
from rtk.core.artifacts.weight_fit import PREFIXES, architecture_in, check_fit, fit_weights, stem_channels
from rtk.core.errors import ArtifactError
from rtk.core.models.model import build_network
from torch import Tensor, nn

Weights = dict[str, Tensor]


class Wrapped(nn.Module):
    """A network whose own layers are called `model` and `backbone`."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(OrderedDict(model=nn.Conv2d(3, 4, 3), module=nn.BatchNorm2d(4)))
        self.model = nn.Linear(4, 2)


def plain() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))


def states(weights: Mapping[str, Tensor], key: str = "", *, averaged: bool = False) -> list[StateDict]:
    return [StateDict(weights, key, averaged)]


def renamed(weights: Weights, change: Callable[[str], str]) -> Weights:
    return {change(name): value for name, value in weights.items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


MIXED = ("module._orig_mod.", "_orig_mod.module.", "model.module.", "net.backbone.", "module.model.net.", "")


@pytest.mark.parametrize("network", [plain, Wrapped])
@pytest.mark.parametrize("prefix", [*PREFIXES, *MIXED])
def test_a_prefix_is_removed_and_layers_of_such_names_stay(network: Callable[[], nn.Module], prefix: str) -> None:
    source = network().state_dict()
    fitted = fit_weights(states(renamed(source, lambda name: prefix + name)), network().state_dict())
    assert_same(fitted.weights, source)
    assert fitted.changes == ((f"prefix {prefix} removed",) if prefix else ())


@pytest.mark.parametrize("prefix", ["encoder.", "models.", "x_module."])
def test_a_prefix_that_is_not_known_stays(prefix: str) -> None:
    fitted = fit_weights(states(renamed(plain().state_dict(), lambda name: prefix + name)), plain().state_dict())
    assert all(name.startswith(prefix) for name in fitted.weights)


@pytest.mark.parametrize("part", ["module", "_orig_mod", "_orig_mod.module"])
def test_what_wrappers_leave_within_names_is_removed(part: str) -> None:
    source = plain().state_dict()
    inside = renamed(source, lambda name: name.replace("conv.", f"conv.{part}."))
    assert_same(fit_weights(states(inside), source).weights, source)


def test_a_head_beside_a_wrapped_backbone_is_found() -> None:
    source = plain().state_dict()
    beside = renamed(source, lambda name: name if name.startswith("fc.") else f"backbone.{name}")
    fitted = fit_weights(states(beside), source)
    assert_same(fitted.weights, source)
    assert fitted.changes == ("prefix backbone. removed",)


def test_several_prefixes_in_one_file_are_removed() -> None:
    source = plain().state_dict()
    mixed = renamed(source, lambda name: {"conv": "", "bn": "module.", "fc": "net."}[name.partition(".")[0]] + name)
    assert_same(fit_weights(states(mixed), source).weights, source)


def test_what_belongs_to_no_layer_is_left_out_and_named() -> None:
    source = plain().state_dict()
    file = {**renamed(source, lambda name: f"model.{name}"), "criterion.weight": torch.ones(2)}
    fitted = fit_weights(states(file), source)
    assert_same(fitted.weights, source)
    assert fitted.changes == ("prefix model. removed", "left out, as they lack that prefix: criterion.weight")


def test_the_counter_of_an_averaged_model_is_no_layer() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(plain())
    fitted = fit_weights(states(averaged.state_dict()), plain().state_dict())
    assert_same(fitted.weights, averaged.module.state_dict())
    assert fitted.changes == ("prefix module. removed",)


def test_what_is_below_the_prefix_is_never_left_out() -> None:
    """The layers of resnet18 are all in the file of resnet34."""
    file = renamed(build_network("resnet34", in_channels=3, classes=10).state_dict(), lambda name: f"module.{name}")
    wanted = build_network("resnet18", in_channels=3, classes=10).state_dict()
    with pytest.raises(ArtifactError) as caught:
        check_fit(fit_weights(states(file), wanted).weights, wanted, path=Path("x.pth"), arch="resnet18")
    assert str(caught.value) == (
        "x.pth: its weights do not fit resnet18; unknown: layer1.2.conv1.weight, layer1.2.bn1.weight, "
        "layer1.2.bn1.bias and 93 more; its layers are those of resnet34"
    )


def test_the_error_names_layers_on_both_sides_and_shapes() -> None:
    wanted = plain().state_dict()
    file = {
        "model.conv.weight": torch.ones(4, 3, 5, 5),
        "model.conv.bias": torch.ones(4),
        "model.head.weight": torch.ones(2, 4),
        "metric.total": torch.ones(1),
        **{f"model.bn.{name}": value for name, value in nn.BatchNorm2d(4).state_dict().items()},
    }
    with pytest.raises(ArtifactError) as caught:
        check_fit(fit_weights(states(file), wanted).weights, wanted, path=Path("x.pth"), arch="mine")
    assert str(caught.value) == (
        "x.pth: its weights do not fit mine; missing: fc.weight, fc.bias; unknown: head.weight, metric.total; wrong "
        "shape: conv.weight is 4 x 3 x 5 x 5 instead of 4 x 3 x 3 x 3"
    )


@pytest.mark.parametrize(
    ("dtype", "word"), [(torch.float16, "fp16"), (torch.bfloat16, "bf16"), (torch.float64, "fp64")]
)
def test_other_floating_point_types_are_converted(dtype: torch.dtype, word: str) -> None:
    source = {name: value.to(dtype) for name, value in plain().state_dict().items()}  # counters too, as half() does not
    wanted = plain().state_dict()
    fitted = fit_weights(states(source), wanted)
    assert {name: value.dtype for name, value in fitted.weights.items()} == {n: v.dtype for n, v in wanted.items()}
    assert torch.equal(fitted.weights["conv.weight"], source["conv.weight"].float())
    assert fitted.changes == (f"{word} converted to fp32",)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype: torch.dtype) -> None:
    wanted = plain().state_dict()
    file = {**wanted, "conv.weight": torch.zeros(4, 3, 3, 3).to(dtype)}
    with pytest.raises(ArtifactError, match=rf"wrong type: conv.weight is {str(dtype)[6:]} instead of fp32$"):
        check_fit(fit_weights(states(file), wanted).weights, wanted, path=Path("x.pth"), arch="mine")


def test_weights_that_are_not_finite_are_refused() -> None:
    wanted = plain().state_dict()
    file = {**wanted, "fc.bias": torch.tensor([1.0, torch.nan])}
    with pytest.raises(ArtifactError, match=r"do not fit mine; not finite: fc.bias$"):
        check_fit(fit_weights(states(file), wanted).weights, wanted, path=Path("x.pth"), arch="mine")


def test_of_a_file_with_an_average_the_average_is_taken_unless_the_other_is_requested() -> None:
    raw, average = plain().state_dict(), renamed(plain().state_dict(), lambda name: f"module.{name}")
    both = [*states(average, "ema", averaged=True), *states(raw, "model")]
    taken = fit_weights(both, raw)
    assert torch.equal(taken.weights["conv.weight"], average["module.conv.weight"])
    assert taken.changes == ("its ema (a moving average), not its model", "prefix module. removed")
    other = fit_weights(both, raw, averaged=False)
    assert_same(other.weights, raw)
    assert other.changes == ("its model, not its ema",)


def test_of_several_networks_in_a_file_the_one_that_fits_is_taken() -> None:
    wanted = plain().state_dict()
    both = [*states({"other.weight": torch.ones(2)}, "ema", averaged=True), *states(wanted, "net")]
    assert fit_weights(both, wanted).changes == ("its net, not its ema",)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_are_found_although_safetensors_sorts_the_names(channels: int) -> None:
    file = build_network("resnet8v1", in_channels=channels, classes=2).state_dict()
    in_order = dict(sorted(file.items()))
    assert next(iter(in_order)).startswith("blocks.")
    network = build_network("resnet8v1", in_channels=3, classes=2)
    assert stem_channels(states(renamed(in_order, lambda name: f"net.{name}")), network) == channels


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet18d2l"])
def test_a_network_with_torchvisions_names_is_recognised(arch: str) -> None:
    weights = build_network(arch, in_channels=1, classes=7).state_dict()
    assert architecture_in(states(renamed(weights, lambda name: f"module.{name}"))) == arch


def test_a_wide_resnet_and_others_are_not_taken_for_a_resnet() -> None:
    weights = dict(build_network("resnet50", in_channels=3, classes=7).state_dict())
    wide = {**weights, "layer1.0.conv2.weight": torch.ones(128, 128, 3, 3)}
    longer = {**weights, "layer1.3.conv1.weight": torch.ones(64, 256, 1, 1)}
    assert [architecture_in(states(one)) for one in (weights, wide, longer)] == ["resnet50", None, None]
    assert architecture_in(states(build_network("resnet8v1", in_channels=3, classes=7).state_dict())) is None
