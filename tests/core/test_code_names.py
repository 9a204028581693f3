"""Names of networks outside of rtk: reading, arguments, ensembles."""

import pytest
from rtk.core.errors import UsageError
from rtk.core.models.allowed_code import allow_code, is_allowed
from rtk.core.models.code_names import code_name, members_of, value_of, with_arguments
from rtk.core.models.names import parse_architecture


def test_a_name_has_a_module_a_function_and_arguments() -> None:
    code = code_name("pack.nets:Net.small(width=32, act='si,lu)', sides=[1, 2])")
    assert code is not None
    assert (code.module, code.function) == ("pack.nets", "Net.small")
    assert code.arguments == {"width": 32, "act": "si,lu)", "sides": [1, 2]}
    assert code_name(code.text) == code


@pytest.mark.parametrize(
    "name", ["resnet20v1", "mynets", "a/b:c", "a:b:c", ":net", "nets:", "C:\\net", "1a:b", "a:b c"]
)
def test_other_text_is_no_such_name(name: str) -> None:
    assert code_name(name) is None


@pytest.mark.parametrize(
    "name", ["a:b(3)", "a:b(x=)", "a:b(x=y)", "a:b(**{'x': 1})", "a:b(x=f())", "a:b())", "a:b(x=1)(y=2)"]
)
def test_arguments_are_plain_values_with_names(name: str) -> None:
    with pytest.raises(UsageError, match="expected arguments with names and plain values"):
        parse_architecture(name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("1e-6", 1e-6),
        ("[3, 4]", [3, 4]),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("basic", "basic"),
        ("'32'", "32"),
        ("a=b", "a=b"),
        ("", ""),
        ("(" * 500, "(" * 500),
    ],
)
def test_values_are_literals_or_text(text: str, value: object) -> None:
    assert value_of(text) == value


def test_arguments_replace_those_of_the_name() -> None:
    assert with_arguments("a:b(x=1, y=2)", ["y=3", "z=[1]"]) == "a:b(x=1, y=3, z=[1])"
    assert with_arguments("resnet20v1", []) == "resnet20v1"
    with pytest.raises(UsageError, match="--net-arg width=2: resnet20v1 takes no arguments"):
        with_arguments("resnet20v1", ["width=2"])
    for wrong in ("width", "=3", "a-b=3"):
        with pytest.raises(UsageError, match=f"--net-arg {wrong}: expected KEY=VALUE"):
            with_arguments("a:b", [wrong])


def test_the_members_of_an_ensemble_are_not_split_inside_arguments() -> None:
    assert members_of("a:b(x='1+2', y=(1e+20, 2))+resnet20v1+c:d", "+") == [
        "a:b(x='1+2', y=(1e+20, 2))",
        "resnet20v1",
        "c:d",
    ]


def test_a_module_is_allowed_with_all_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    allow_code("pack.nets")
    assert is_allowed("pack.nets")
    assert is_allowed("pack.nets.small")
    assert not is_allowed("pack")
    assert not is_allowed("pack.netsmall")
    with pytest.raises(UsageError, match="--allow-code a/b: expected the name of a module"):
        allow_code("a/b")
