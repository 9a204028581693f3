"""The table of published accuracies has rtk's own figures from the cards; untrained rows are listed below it."""

import dataclasses
from pathlib import Path

from rtk.core.card import Score
from rtk.core.zoo import zoo_card, zoo_names
from rtk.tools.published import Row, kept_cards, trained_rows, untrained_rows
from rtk.tools.readme_blocks import published_block, table_blocks
from rtk.tools.readme_tables import block_in

ROOT = Path(__file__).parent.parent.parent
ROWS = (Row("resnet20v1", "cifar10", 92.16, 91.25), Row("resnet32v1", "cifar10", 92.46))


def test_trainings_whose_epoch_the_test_split_selected_are_one_line_that_says_so() -> None:
    card = zoo_card("resnet20v1-cifar10")
    assert card.training
    chosen = dataclasses.replace(card.training, recipe="keras", selected_on="test", settings={"epochs": 200})
    cards = [dataclasses.replace(card, training=dataclasses.replace(chosen, epochs=epoch)) for epoch in (187, 193)]
    (trained,) = trained_rows(cards, ROWS)
    assert (trained["seeds"], trained["recipe, length"]) == ("2", "`keras`, the best of 200 epochs on the test split")


def test_seeds_of_one_training_are_a_mean_and_a_spread() -> None:
    card = zoo_card("resnet20v1-cifar10")
    assert card.training
    cards = [
        dataclasses.replace(
            card,
            score=Score("test", correct, 10_000, 0.3),
            training=dataclasses.replace(card.training, recipe="keras", epochs=200, seed=seed, train_s=train_s),
        )
        for seed, (correct, train_s) in enumerate([(9_100, 7_000.0), (9_200, 8_000.0), (9_300, 9_000.0)])
    ]
    (trained,) = trained_rows(cards, ROWS)
    (missing,) = untrained_rows(cards, ROWS)
    assert (trained["rtk"], trained["seeds"], trained["recipe, length"]) == ("92.00 ±1.00", "3", "`keras`, 200 epochs")
    assert (trained["seconds per epoch"], trained["machine"]) == ("40.0", card.training.machine)
    assert (trained["Keras example or README"], trained["paper"], trained["random erasing"]) == ("92.16", "91.25", "")
    assert (missing.arch, missing.published["Keras example or README"]) == ("resnet32v1", "92.46")


def test_rows_that_were_not_trained_are_a_list_below_the_table() -> None:
    table, _, listed = published_block([zoo_card("resnet20v1-cifar10")]).partition("Not trained by rtk yet")
    assert "| resnet20v1 | cifar10 | 92.78 | 1 |" in table
    assert "resnet32v1" not in table
    assert (
        "\n- `resnet32v1` on cifar10: Keras example or README 92.46, paper 92.49, re-implemented 93.59, "
        "random erasing 94.34\n" in listed
    )
    assert "\n- `resnet20v2` on cifar10: none known\n" in listed
    assert "`resnet20v1` on cifar10" not in listed


def test_trainings_of_another_length_are_another_line() -> None:
    card = zoo_card("resnet20v1-cifar10")
    assert card.training
    longer = dataclasses.replace(card, training=dataclasses.replace(card.training, epochs=card.training.epochs + 1))
    assert [row["seeds"] for row in trained_rows([card, longer], ROWS[:1])] == ["1", "1"]


def test_the_models_of_the_zoo_are_part_of_the_table() -> None:
    assert {card.name for card in kept_cards()} >= set(zoo_names())


def test_the_published_table_of_the_docs_is_that_of_the_cards() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert block_in(page, "published") == table_blocks()["published"]
