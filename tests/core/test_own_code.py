"""Networks that functions outside of rtk build: what they get, what they may return, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from fakes import networks
from rtk.core.card import Input
from rtk.core.errors import ArtifactError, UsageError
from rtk.core.models.allowed_code import allow_code
from rtk.core.models.model import Model, build_network
from rtk.core.models.normalise import Normalise
from rtk.core.models.own_code import has_other_code, logits_of
from rtk.core.models.rounded import rounded_logits
from rtk.core.models.summary import layer_table, parameter_count
from rtk.core.probe import probe_images
from torch import nn

MODULE = """
from torch import nn
import torch

def takes_nothing(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
def any_name(**kwargs): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, kwargs["num_classes"]))
def sized(out_features, channels, img_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * img_size ** 2, out_features))
def oblong(num_labels, input_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * input_size[0] * input_size[1], num_labels))
def no_module(): return 3
def fails(): raise ValueError("no such\\nsize")
def whole(): return lambda x: x
class Integers(nn.Module):
    def forward(self, x): return torch.ones(len(x), 10, dtype=torch.int64)
class Nothing(nn.Module):
    def forward(self, x): return None
class Pair(nn.Module):
    def forward(self, x): return torch.ones(len(x), 10), torch.ones(len(x), 10)
number = 3
"""


@pytest.fixture(autouse=True)
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that may be imported, and one that may not."""
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    (tmp_path / "other_nets.py").write_text(MODULE)
    (tmp_path / "broken_nets.py").write_text("import nothing_of_that_name")
    (tmp_path / "forbidden_nets.py").write_text("raise SystemExit('this code must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("other_nets", "broken_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    allow_code("other_nets", "broken_nets", "missing_nets", "fakes")


def built(function: str, *, in_channels: int = 3, classes: int = 10, size: tuple[int, int] = (8, 8)) -> nn.Module:
    name = function if ":" in function else f"other_nets:{function}"
    return build_network(name, in_channels=in_channels, classes=classes, size=size)


@pytest.mark.parametrize(
    ("function", "channels", "classes", "size"),
    [
        ("takes_nothing", 3, 10, (8, 8)),
        ("any_name", 3, 7, (8, 8)),
        ("sized", 1, 4, (12, 12)),
        ("oblong", 3, 5, (8, 12)),
        ("fakes.networks:Mobile", 1, 3, (32, 32)),
        ("fakes.networks:Attentive(width=16)", 3, 6, (16, 16)),
        ("fakes.networks:Flat", 3, 2, (32, 32)),
    ],
)
def test_a_function_gets_what_it_has_parameters_for(
    function: str, channels: int, classes: int, size: tuple[int, int]
) -> None:
    network = built(function, in_channels=channels, classes=classes, size=size).eval()
    assert logits_of(network(torch.zeros(3, channels, *size))).shape == (3, classes)
    assert network.training is False
    assert all(layer.training for layer in built(function, in_channels=channels, classes=classes, size=size).modules())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "any_name(num_classes=3)",
            r"returns float32 2 x 3 for images float 2 x 3 x 8 x 8, expected logits 2 x 10; rtk gives",
        ),
        ("takes_nothing(width=3)", r"building the network fails: TypeError: .*unexpected keyword argument 'width'"),
        ("no_module", r"other_nets:no_module: returns int, expected a torch.nn.Module"),
        ("whole", r"returns function, expected a torch.nn.Module"),
        ("fails", r"building the network fails: ValueError: no such size"),
        ("Integers", r"returns int64 2 x 10 for images"),
        (
            "Nothing",
            r"on images float 2 x 3 x 8 x 8: TypeError: returns NoneType, expected a tensor, or one called logits",
        ),
        ("Pair", r"returns tuple, expected a tensor"),
        ("number", r"number is int, expected a function or a class"),
        ("absent", r"other_nets has no absent$"),
        ("takes_nothin", r"other_nets has no takes_nothin; did you mean takes_nothing\?"),
        (
            "any_name(num_classes=3)",
            r"expected logits 2 x 10; rtk gives the number of classes itself: leave out num_cl",
        ),
        ("missing_nets:net", r"importing missing_nets fails: no such module in this folder or in Python's path"),
        (
            "broken_nets:net",
            r"importing broken_nets fails: ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
    ],
)
def test_what_is_wrong_with_a_network_is_one_clear_line(function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        built(function)
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_for_the_config_of_transformers_is_an_error() -> None:
    allow_code("transformers")
    with pytest.raises(UsageError, match=r"TypeError: ViTConfig has no 'hiden_size'; did you mean hidden_size\?"):
        built("transformers:ViTForImageClassification(hiden_size=32)", size=(32, 32))


def test_grey_images_for_a_network_of_colours_are_an_error_that_names_rgb() -> None:
    with pytest.raises(UsageError, match=r"fails on images float 2 x 1 x 32 x 32 \(images have one channel; --rgb"):
        built("fakes.networks:Flat", in_channels=1, size=(32, 32))


def test_code_that_was_not_allowed_does_not_run() -> None:
    with pytest.raises(ArtifactError, match=r"wants to import forbidden_nets; if you trust it, add --allow-code forb"):
        built("forbidden_nets:net")
    assert "forbidden_nets" not in sys.modules


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(2, 3),
        {"logits": torch.ones(2, 3), "loss": torch.zeros(())},
        {"out": torch.ones(2, 3)},
        {"prediction": torch.ones(2, 3)},
        networks.Output(torch.ones(2, 3), torch.zeros(2, 5)),
        (torch.ones(2, 3),),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_found_in_the_usual_outputs(output: object) -> None:
    assert torch.equal(logits_of(output), torch.ones(2, 3))


def test_a_network_with_view_gets_contiguous_planes_and_others_do_not() -> None:
    assert built("fakes.networks:Flat", size=(32, 32)).takes_contiguous is True
    assert built("fakes.networks:Mobile", size=(32, 32)).takes_contiguous is False


def test_only_networks_of_rtk_alone_are_known() -> None:
    assert not has_other_code(build_network("resnet8v1", in_channels=3, classes=10))
    assert not has_other_code(build_network("resnet8v1+resnet18", in_channels=3, classes=10))
    assert has_other_code(built("fakes.networks:Flat", size=(32, 32)))
    assert has_other_code(built("resnet8v1+fakes.networks:Flat", size=(32, 32)))
    assert has_other_code(built("takes_nothing"))  # of torch's layers alone


def test_the_layers_of_a_network_are_listed_with_their_shapes() -> None:
    rows = layer_table("fakes.networks:Attentive(width=16)", side=16, classes=4)
    assert rows[0] == {"layer": "patches", "type": "Conv2d", "output": "16 x 2 x 2", "parameters": 16 * 3 * 64 + 16}
    assert rows[-1]["parameters"] == parameter_count("fakes.networks:Attentive(width=16)", side=16, classes=4)


def test_the_result_of_every_operation_of_such_a_network_is_rounded() -> None:
    """x * x in no layer: in bf16 1.0078125 squared is 1.015625, and the sum with 2 ** -9 is lost."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0078125))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.weight * self.weight + 2.0**-9 + 0 * x.mean(dim=(2, 3))).expand(-1, 2)

    mean, deviation = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    found_NK = rounded_logits(
        Model(Normalise(mean, deviation), Square()), probe_images(2, Input(4, 4, 1)), torch.bfloat16
    )
    assert found_NK.tolist() == [[1.015625] * 2] * 2
