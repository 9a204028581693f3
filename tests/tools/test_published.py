"""The table of published accuracies: rtk's own figures are those of the cards, and what was not trained says so."""

import dataclasses

from rtk.core.card import Score
from rtk.core.zoo import zoo_card, zoo_names
from rtk.tools import readme_tables as results
from rtk.tools.published import Row, kept_cards, table_rows

ROWS = (Row("resnet20v1", "cifar10", 92.16, 91.25), Row("resnet32v1", "cifar10", 92.46))


def test_epochs_that_the_test_split_chose_are_one_line_that_says_so() -> None:
    card = zoo_card("resnet20v1-cifar10")
    assert card.training
    chosen = dataclasses.replace(card.training, recipe="keras", selected_on="test", settings={"epochs": 200})
    cards = [dataclasses.replace(card, training=dataclasses.replace(chosen, epochs=epoch)) for epoch in (187, 193)]
    trained, _ = table_rows(cards, ROWS)
    assert (trained["seeds"], trained["how"]) == ("2", "`keras`, the best of 200 epochs on the test split")


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
    trained, missing = table_rows(cards, ROWS)
    assert (trained["rtk"], trained["seeds"], trained["how"]) == ("92.00 ±1.00", "3", "`keras`, 200 epochs")
    assert (trained["s an epoch"], trained["machine"]) == ("40.0", card.training.machine)
    assert (trained["example"], trained["paper"], trained["random erasing"]) == ("92.16", "91.25", "")
    assert (missing["network"], missing["rtk"], missing["example"]) == ("resnet32v1", "not yet trained", "92.46")


def test_other_epochs_are_another_line() -> None:
    card = zoo_card("resnet20v1-cifar10")
    assert card.training
    longer = dataclasses.replace(card, training=dataclasses.replace(card.training, epochs=card.training.epochs + 1))
    assert [row["seeds"] for row in table_rows([card, longer], ROWS[:1])] == ["1", "1"]


def test_the_zoo_is_part_of_it() -> None:
    assert {card.name for card in kept_cards()} >= set(zoo_names())


def test_the_published_table_of_the_readme_is_that_of_the_cards() -> None:
    blocks = results.table_blocks()
    assert results.block_in(results.README.read_text(encoding="utf-8"), "published") == blocks["published"]
