"""Sentences of English and its like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xuebu.corpus.latin import split_latin


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        (
            'The ship left at 9.30 a.m. and Dr. Smith was late. Nobody waited! Why? "It rains," she said. He left.',
            [
                "The ship left at 9.30 a.m. and Dr. Smith was late.",
                " Nobody waited!",
                " Why?",
                ' "It rains," she said.',
                " He left.",
            ],
        ),
        (
            "Mr. Brown paid $3.50 in the U.S. last year. Then he went home (by bus.) And slept.",
            ["Mr. Brown paid $3.50 in the U.S. last year.", " Then he went home (by bus.)", " And slept."],
        ),
        ("J. K. Rowling vs. Prof. A. Turing. 1950 it was.", ["J. K. Rowling vs. Prof. A. Turing.", " 1950 it was."]),
        ("It was I. You knew... And? ok. maybe!", ["It was I.", " You knew...", " And? ok. maybe!"]),
        ("Он пришёл. Она ушла! «Где?» Там.", ["Он пришёл.", " Она ушла!", " «Где?»", " Там."]),
        ("Él preguntó: ¿Vienes? ¡Sí!", ["Él preguntó: ¿Vienes?", " ¡Sí!"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)  # fmt: skip
def test_sentences_end_where_a_reader_ends_them(paragraph, sentences):
    assert split_latin(paragraph) == sentences


@given(st.text("aAbB .!?\"')(1é", max_size=60))
def test_nothing_is_lost(paragraph):
    assert "".join(split_latin(paragraph)) == paragraph
    assert all(split_latin(paragraph))
