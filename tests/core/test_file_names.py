"""Names of models are safe file names, whatever a data set or a card is called."""

import re

import pytest
from rtk.core.errors import UsageError
from rtk.core.file_names import check_name, named_after, safe_name


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("resnet18-pets-s0", "resnet18-pets-s0"),
        ("a.b_c+d-9", "a.b_c+d-9"),
        ("my pets, 2024", "my_pets_2024"),
        ('Ana\'s "cats"', "Ana_s_cats"),
        ("a\nb\tc\r", "a_b_c"),
        ("../../etc/passwd", "etc_passwd"),
        ("my - pets", "my_pets"),
        ("/", ""),
        ("..", ""),
        ("-rf", "rf"),
        (".hidden", "hidden"),
        ("$(rm x);`y`*?<>|&:\\", "rm_x_y"),
        ("\x1b[31mred\0", "31mred"),
        ("\u52a8\u7269", "\u52a8\u7269"),
        ("Ka\u0308fer", "K\u00e4fer"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("cat \U0001f63a", "cat"),
        ("a\udcffb", "a_b"),
        ("a" * 300, "a" * 100),
        ("\u52a8" * 40, "\u52a8" * 33),
    ],
)
def test_a_name_becomes_a_safe_file_name_and_then_stays_as_it_is(text: str, safe: str) -> None:
    assert safe_name(text) == safe
    assert safe_name(safe) == safe


def test_a_name_for_triton_has_letters_and_digits_of_ascii_alone() -> None:
    assert safe_name("K\u00e4fer+\u52a8 1.int8", ascii_only=True) == "K_fer_1.int8"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", r"^--name 'a/b': expected letters, digits and \. _ \+ -, at most 100 bytes; try --name a_b$"),
        ("", r"^--name '': expected letters, digits and \. _ \+ -, at most 100 bytes$"),
        ("a\nb", r"^--name 'a\\nb': expected .*; try --name a_b$"),
        ("pets.onnx", r"^--name 'pets\.onnx': expected no \.onnx at its end; try --name pets$"),
        ("x" * 101, r"at most 100 bytes; try --name x{100}$"),
    ],
)
def test_a_chosen_name_that_is_not_safe_is_refused_with_a_similar_one(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_name(name)
    check_name("pets-v1.2_\u52a8+b")


def test_only_the_files_of_any_run_are_named_after_the_card() -> None:
    stems = {stem: named_after(stem, lambda: "my net-s1") for stem in ("best", "last", "best.int8", "bestiary", "mine")}
    assert stems == {
        "best": "my_net-s1",
        "last": "my_net-s1",
        "best.int8": "my_net-s1.int8",
        "bestiary": "bestiary",
        "mine": "mine",
    }
    assert named_after("best", lambda: "///") == "best", "nothing is left of such a name"
    assert not re.search(r"[^\w.+-]", named_after("last", lambda: "a b\n/c"))
