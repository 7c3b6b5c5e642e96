"""Weights in prompts, which other tools read: told where one is meant, and not where brackets are only brackets."""

import pytest

from fusain.generation import prompt_weights


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a face with a (red hat:1.3)", "(red hat:1.3)"),
        ("a face with a (red hat:1.3", "(red hat:1.3"),
        ("(red hat:1.3, green skin", "(red hat:1.3"),
        ("red hat:.8), green skin", "hat:.8)"),
        ("(a (red) hat:1.3)", "hat:1.3)"),
        ("(rote Mütze:1.3)", "(rote Mütze:1.3)"),
        ("(red hat:2) and more", "(red hat:2)"),
        ("a ((red hat)) and green skin", "((red hat))"),
        ("a ((red hat) and green skin", "((red hat)"),
        ("a (((red hat", "(((red hat"),
        ("[red hat:0.5], green skin", "[red hat:0.5]"),
        ("[red hat:green hat:0.5]", "[red hat:green hat:0.5]"),
        ("a [[red hat]]", "[[red hat]]"),
        ("(" + "red " * 20 + "hat:1.3)", "(" + "red " * 14 + "red…"),
    ],
)
def test_a_weight_is_told(prompt: str, shown: str) -> None:
    (told,) = prompt_weights.notices([prompt], where="--prompt")
    assert str(told) == (
        f"W-GEN-001 '{shown}' is read as it stands: prompts have no weights here, and brackets and numbers are letters "
        "like others. (--prompt) Leave them out. To stress something, say it in more words; guidance stresses the "
        "whole prompt."
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a face with a red hat",
        "a face (an old one) with a hat (red)",
        "a (very (old)) face",
        "a [sks] face",
        "[hat], [glasses]",
        "watercolor \\(medium\\)",
        "watercolor \\((medium)\\)",
        "a clock (10:30), a screen (16:9), a film (1:1.85)",
        "a screen (ratio 16:9)",
        "a book (page: 3)",
        "a photo (aperture: 2.8)",
        "a verse (John 3:16)",
        "a sad face :((",
        "a sad face :((very sad",
        "a cat face :3)",
        "a drawing of f(x) = (x + 1)(x - 1)",
        "one, two: three",
        "1) a hat 2) glasses",
    ],
)
def test_brackets_without_weights_are_nothing_to_tell(prompt: str) -> None:
    assert list(prompt_weights.notices([prompt], where="--prompt")) == []


def test_each_prompt_is_told_once() -> None:
    prompts = ["(hat:1.3), (skin:0.8)", "a face", "(hat:1.3), (skin:0.8)", "((glasses))"]
    told = [str(notice) for notice in prompt_weights.notices(prompts, where="--prompt")]
    assert [text.split("'")[1] for text in told] == ["(hat:1.3)", "((glasses))"]
