"""Vectors of tokens from counts: pairs against loops, factors against a dense decomposition."""

from collections import Counter

import numpy as np

from xuebu.batches import contexts
from xuebu.batches.cooccurrence import count_pairs, token_vectors


def test_pairs_are_those_of_two_loops(tokens, monkeypatch):
    expected = Counter()
    for number in range(tokens.train.num_sentences):
        sentence = tokens.train.sentence_tokens(number).tolist()
        for place, token in enumerate(sentence):
            for distance, weight in ((1, 1.0), (2, 0.5)):
                if place + distance < len(sentence):
                    expected[token, sentence[place + distance]] += weight
                    expected[sentence[place + distance], token] += weight
    documents = np.arange(tokens.train.num_documents)
    for size in (1 << 20, 500):  # in one piece, and in many
        monkeypatch.setattr(contexts, "_CHUNK_TOKENS", size)
        rows, columns, weights = count_pairs(tokens.train, documents, tokens.vocabulary.num_tokens)
        found = Counter()
        for row, column, weight in zip(rows.tolist(), columns.tolist(), weights.tolist(), strict=True):
            found[row, column] += weight
        assert found == expected


def test_products_are_the_largest_part_of_the_information(tokens):
    documents, size = np.arange(tokens.train.num_documents), 24
    num_tokens = tokens.vocabulary.num_tokens
    rows, columns, weights = count_pairs(tokens.train, documents, num_tokens)
    pairs = np.zeros((num_tokens, num_tokens))
    np.add.at(pairs, (rows, columns), weights)
    marginal = pairs.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(pairs * pairs.sum() / np.outer(marginal, marginal))
        least = np.minimum.outer(marginal, marginal)
        information *= pairs / (pairs + 1) * least / (least + 1)
    information = np.where(pairs > 0, np.maximum(information, 0), 0)
    values, vectors = np.linalg.eigh(information)
    leading = np.argsort(-np.abs(values))[:8]  # those near the last one kept lie too close together to be told apart
    expected = np.abs(values[leading]) / np.abs(values[leading[0]])

    def along(found):
        squares = np.square(found.T @ vectors[:, leading]).sum(0)
        return squares / squares[0]

    found = token_vectors(tokens.train, documents, num_tokens, size, key=7)
    assert found.shape == (num_tokens, size) and found.dtype == np.float32
    np.testing.assert_allclose(np.mean(found.astype(float) ** 2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(along(found), expected, rtol=0.05)
    again, other = (token_vectors(tokens.train, documents, num_tokens, size, key=key) for key in (7, 8))
    np.testing.assert_array_equal(again, found)
    assert np.abs(other - found).max() > 0.1  # turned another way
    np.testing.assert_allclose(along(other), expected, rtol=0.05)


def test_more_dimensions_than_tokens(tokens):
    num_tokens = tokens.vocabulary.num_tokens
    found = token_vectors(tokens.train, np.arange(3), num_tokens, num_tokens + 8, key=1)
    assert found.shape == (num_tokens, num_tokens + 8) and np.isfinite(found).all()
    np.testing.assert_allclose(found[tokens.vocabulary.mask_id], 0.0, atol=1e-5)  # it stands nowhere
