"""Vectors of tokens from which tokens stand near each other: counting as a start for word embeddings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xuebu.batches.contexts import Float64, Int64, add_counts, read_documents
from xuebu.tokens.store import Store

_DISTANCES = {1: 1.0, 2: 0.5}  # weight of a pair of tokens so far apart
_OVERSAMPLING, _ROUNDS = 16, 4


def count_pairs(store: Store, documents: Int64, num_tokens: int) -> tuple[Int64, Int64, Float64]:
    """Return which tokens stand within two places of each other in a sentence, and how often: rows, columns, weights.

    Args:
        store: the text.
        documents: int64[D], the documents to count.
        num_tokens: entries of the vocabulary.

    Returns:
        int64[E], int64[E], float64[E]; both orders of a pair are there.
    """
    found = {distance: (np.zeros(0, dtype=np.int64),) * 2 for distance in _DISTANCES}
    for tokens, lengths in read_documents(store, documents):
        sentences = np.repeat(np.arange(len(lengths)), lengths)
        for distance, counted in found.items():
            inside = sentences[distance:] == sentences[:-distance]
            codes = (tokens[:-distance] * num_tokens + tokens[distance:])[inside]
            found[distance] = add_counts(counted, np.unique(codes, return_counts=True))
    codes = np.concatenate([codes for codes, _ in found.values()])
    weights = np.concatenate([_DISTANCES[distance] * counts for distance, (_, counts) in found.items()])
    rows, columns = np.divmod(codes, num_tokens)
    return np.concatenate([rows, columns]), np.concatenate([columns, rows]), np.concatenate([weights, weights])


def token_vectors(store: Store, documents: Int64, num_tokens: int, size: int, key: int) -> npt.NDArray[np.float32]:
    """Return vectors whose products are about the pointwise mutual information of tokens near each other, [V, size].

    The matrix of positive pointwise mutual information, shrunk where counts are small, is symmetric; its eigenvectors
    of the largest eigenvalues, each times the root of its eigenvalue's size, are turned by a random rotation, so that
    no dimension stands out. The mean square of all entries is 1.

    Args:
        store: the text.
        documents: int64[D], the documents to count.
        num_tokens: V.
        size: of a vector.
        key: decides the rotation and the start of the iteration.

    Source: Levy and Goldberg 2014, "Neural word embedding as implicit matrix factorization" (positive information and
    its factors); Turney and Pantel 2010, "From frequency to meaning", section 4.2 (shrinking); Halko, Martinsson and
    Tropp 2011, "Finding structure with randomness", algorithm 4.4.
    """
    from scipy import sparse

    rows, columns, weights = count_pairs(store, documents, num_tokens)
    pairs = sparse.csr_matrix((weights, (rows, columns)), shape=(num_tokens, num_tokens))
    pairs.sum_duplicates()
    entries = pairs.tocoo()
    marginal = np.asarray(pairs.sum(axis=1)).ravel()
    lower = np.minimum(marginal[entries.row], marginal[entries.col])
    information = np.log(entries.data * marginal.sum() / (marginal[entries.row] * marginal[entries.col]))
    information = np.maximum(information, 0.0) * entries.data / (entries.data + 1.0) * lower / (lower + 1.0)
    matrix = sparse.csr_matrix((information, (entries.row, entries.col)), shape=pairs.shape)
    generator = np.random.Generator(np.random.Philox(key=key))
    basis = generator.standard_normal((num_tokens, min(size + _OVERSAMPLING, num_tokens)))
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(matrix @ basis)
    values, inner = np.linalg.eigh(basis.T @ (matrix @ basis))
    largest = np.argsort(-np.abs(values), kind="stable")[:size]
    found = (basis @ inner[:, largest]) * np.sqrt(np.abs(values[largest]))
    rotation, _ = np.linalg.qr(generator.standard_normal((size, size)))
    vectors = found @ rotation[: found.shape[1]]  # fewer tokens than dimensions: within as many as there are tokens
    return np.asarray(vectors / max(np.sqrt(np.mean(vectors**2)), 1e-12), dtype=np.float32)
