"""Near-duplicates among documents: MinHash over runs of characters, found by locality-sensitive hashing on disk.

A document is the set of the runs of `NGRAM` = 5 characters of its letters and digits (`overlap.bare_text`). Why 5,
measured by `benchmarks/dedup.py n` on 300 statutes and 300 paragraphs of Wikipedia of up to 1,500 characters: a copy
with 1, 2 and 5 % of its characters edited keeps a similarity of 0.91, 0.83 and 0.64, so that the usual threshold of 0.8
takes copies with up to some 2 % of edits; unrelated statutes, which share their phrases, stay below 0.05 (99 %). With
n = 1 these reach 0.50, and with 3 still 0.09, and meet in more buckets; with 8, 2 % of edits leave 0.75.

Short texts have their own rule: one changed character costs 2n of the runs that two texts have together, so below
`SHORT_CHARACTERS` = 10n characters a single edit takes the similarity below 0.8, and the estimate is coarse. There only
texts with equal letters and digits are duplicates: their set has one member, the whole text. A signature holds 32 bits
of that member, so digests of 64 bits are compared too.

The signatures are made where a part of the input is sieved (`Fingerprints`), and joined by one process
(`SignatureStore`). They are ours and not a library's, though rensa makes them faster: the corpus and its digest follow
from them, and another version of a library may hash in another way. `benchmarks/dedup.py` compares the speeds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xuebu.corpus.dedup import digests_of_runs
from xuebu.corpus.overlap import bare_codes, character_keys, compared_codes
from xuebu.progress import Task
from xuebu.rng import draw_bits, key_of

UInt64 = npt.NDArray[np.uint64]
UInt32 = npt.NDArray[np.uint32]
Int64 = npt.NDArray[np.int64]

NGRAM = 5
SHORT_CHARACTERS = 10 * NGRAM
NUM_PERMUTATIONS = 128
MIN_RECALL = 0.99

_CHUNK = 512  # runs hashed at once by all permutations: what fits into the second-level cache


def ngram_hashes(codes: UInt32, n: int = NGRAM) -> UInt64:
    """Return a 64-bit hash of each run of n characters: uint64[max(0, characters - n + 1)].

    Args:
        codes: uint32[characters], code points.
        n: characters of a run.

    Source: Karp and Rabin 1987, a polynomial modulo 2**64; then the finalizer of SplitMix64 (Steele, Lea and Flood
    2014), since the permutations of a signature want well-mixed bits.
    """
    wide = codes.astype(np.uint64)
    count = len(wide) - n + 1
    if count <= 0:
        return np.empty(0, dtype=np.uint64)
    hashes = wide[:count].copy()
    with np.errstate(over="ignore"):
        for place in range(1, n):
            hashes *= np.uint64(0x9E3779B97F4A7C15)
            hashes += wide[place : place + count]
        hashes ^= hashes >> np.uint64(30)
        hashes *= np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(27)
        hashes *= np.uint64(0x94D049BB133111EB)
        hashes ^= hashes >> np.uint64(31)
    return hashes


def shingles(text: str, n: int = NGRAM) -> UInt64:
    """Return the set that stands for a text, as hashes, repeats included: never empty.

    The runs of n characters of its letters and digits; of a text with fewer than `SHORT_CHARACTERS`, the whole.
    """
    return _members(bare_codes([text]), n)


def _members(bare: UInt32, n: int = NGRAM) -> UInt64:
    if len(bare) < 10 * n:
        return np.array([key_of("xuebu short text", bare.tobytes().decode("utf-32-le"))], dtype=np.uint64)
    return ngram_hashes(bare, n)


@cache
def _permutations() -> tuple[UInt32, UInt32]:
    bits = draw_bits(key_of("xuebu minhash"), np.arange(NUM_PERMUTATIONS))[:, None]
    return (bits >> np.uint64(32)).astype(np.uint32) | np.uint32(1), bits.astype(np.uint32)


def signature(hashes: UInt64) -> UInt32:
    """Return the MinHash signature of a set: uint32[128], the least of its members under each of 128 permutations.

    Two sets of Jaccard similarity s agree in each place with probability s, so that the share of equal places estimates
    s with a standard error of sqrt(s (1 - s) / 128): 0.035 at 0.8.

    Source: Broder 1997. The permutations are x -> a x + b modulo 2**32 with a odd; the members are hashes already, and
    `test_corpus_near` finds the estimate without bias and with that standard error.
    """
    factors, terms = _permutations()
    least = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, dtype=np.uint32)
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    for start in range(0, len(values), _CHUNK):
        permuted = values[start : start + _CHUNK] * factors
        permuted += terms
        np.minimum(least, permuted.min(axis=1), out=least)
    return least


def rows_of_a_band(similarity: float) -> int:
    """Return how many places of a signature make a band, so that pairs of this similarity are met with 99 %.

    A pair of similarity s is a candidate if one of b bands of r places is equal: 1 - (1 - s**r)**b. The largest r that
    reaches 0.99 lets the fewest other pairs through; what is met by chance is refused by the whole signature.

    Source: Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.
    """
    for rows in range(NUM_PERMUTATIONS, 1, -1):
        if 1 - (1 - similarity**rows) ** (NUM_PERMUTATIONS // rows) >= MIN_RECALL:
            return rows
    return 1


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What is near to what.

    Attributes:
        leaders: int64[documents], the first document of each one's cluster; itself where it stands alone. A cluster is
            what is linked by near-duplicates or by one group, directly or through others.
        repeats: int64[documents], of a document that is near to an earlier one that is kept, that one; else -1.
        equal: bool[documents], whether it repeats letters and digits of that one exactly.
    """

    leaders: Int64
    repeats: Int64
    equal: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FingerprintTable:
    """What near-duplicates of some documents are found by.

    Attributes:
        signatures: uint32[documents, 128].
        bands: uint64[bands, documents], a hash of each band of a signature.
        digests: uint64[documents], of a document's letters and digits.
        is_short: bool[documents], whether it has fewer than `SHORT_CHARACTERS` of these.
    """

    signatures: UInt32
    bands: UInt64
    digests: UInt64
    is_short: npt.NDArray[np.bool_]


class Fingerprints:
    """Makes what near-duplicates are found by, document by document; a part of the input needs no other part for it."""

    def __init__(self, similarity: float, *, exact: bool = False) -> None:
        """Begin; `similarity` as in `SignatureStore`, `exact` as in `overlap.compared_codes`."""
        self._exact = exact
        self._rows = rows_of_a_band(similarity)
        self._signatures: list[UInt32] = []
        self._digests: list[UInt64] = []
        self._is_short: list[bool] = []

    def append(self, sentences: Sequence[str]) -> None:
        """Add the next document."""
        bare = compared_codes(["".join(sentences)], exact=self._exact)
        self._signatures.append(signature(_members(bare)))
        self._digests.append(digests_of_runs(character_keys()[bare], np.array([len(bare)])))
        self._is_short.append(len(bare) < SHORT_CHARACTERS)

    def table(self) -> FingerprintTable:
        """Return those of all documents so far."""
        signatures = np.array(self._signatures, dtype=np.uint32).reshape(-1, NUM_PERMUTATIONS)
        bands = NUM_PERMUTATIONS // self._rows
        used = signatures[:, : bands * self._rows].reshape(-1, bands, self._rows)
        keys = np.zeros(used.shape[:2], dtype=np.uint64)
        for row in range(self._rows):
            keys = (keys ^ used[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
        return FingerprintTable(
            signatures,
            np.ascontiguousarray(keys.T),
            np.concatenate([np.empty(0, dtype=np.uint64), *self._digests]),
            np.array(self._is_short, dtype=bool),
        )


class SignatureStore:
    """The signatures of documents, on disk; some 60 bytes a document are in memory while duplicates are sought."""

    def __init__(self, folder: Path, similarity: float) -> None:
        """Open a store.

        Args:
            folder: for its files, some 0.7 KB a document; they are left there.
            similarity: Jaccard similarity, as estimated, from which texts are near-duplicates, above 0 and up to 1.
        """
        self.similarity = similarity
        self.num_bands = NUM_PERMUTATIONS // rows_of_a_band(similarity)
        self._digests, self._groups, self._is_short = array("Q"), array("Q"), bytearray()
        self._path = folder / "signatures"
        self._band_paths = [folder / f"signatures.{band}" for band in range(self.num_bands)]
        self._files = [path.open("wb") for path in (self._path, *self._band_paths)]

    def __len__(self) -> int:
        return len(self._groups)

    def extend(self, table: FingerprintTable, groups: UInt64) -> None:
        """Add the next documents: their fingerprints, and the keys of their groups, uint64[documents]."""
        for file, values in zip(self._files, (table.signatures, *table.bands), strict=True):
            file.write(values.tobytes())
        self._digests.frombytes(table.digests.tobytes())
        self._groups.frombytes(groups.tobytes())
        self._is_short += table.is_short.tobytes()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def remove(self) -> None:
        """Remove the files, which must be closed."""
        for file in self._files:
            Path(file.name).unlink(missing_ok=True)

    def find(self, task: Task) -> NearDuplicates:
        """Return what is near to what; the store must be closed.

        A document repeats the first document in the order of the input that is near to it and repeats none itself: so
        no text is lost through a chain of small differences, and the result does not depend on anything but the order.
        In a bucket each document is compared with the bucket's first; those not near to it, with the first of these;
        and so on.

        Args:
            task: advanced once a band.
        """
        count = len(self)
        leaders = np.arange(count)
        repeats, equal = np.full(count, -1), np.zeros(count, dtype=bool)
        if count:
            signatures = np.memmap(self._path, dtype="<u4", mode="r", shape=(count, NUM_PERMUTATIONS))
            for path in self._band_paths:
                for bucket in _equal_runs(np.fromfile(path, dtype="<u8")):
                    self._link(bucket, signatures, leaders)
                task.advance()
            digests = np.frombuffer(self._digests, dtype=np.uint64)
            _flatten(leaders)
            for cluster in _equal_runs(leaders):
                for first, others in self._stars(cluster, signatures):
                    repeats[others] = first
                    equal[others] = digests[others] == digests[first]
            for same in _equal_runs(np.frombuffer(self._groups, dtype=np.uint64)):
                for other in same[1:].tolist():
                    _unite(leaders, int(same[0]), other)
            _flatten(leaders)
        return NearDuplicates(leaders, repeats, equal)

    def _link(self, bucket: Int64, signatures: UInt32, leaders: Int64) -> None:
        """Unite the members of a bucket that are near to each other."""
        if len({_leader(leaders, member) for member in bucket.tolist()}) == 1:
            return
        for first, others in self._stars(bucket, signatures):
            for other in others.tolist():
                _unite(leaders, first, other)

    def _stars(self, members: Int64, signatures: UInt32) -> list[tuple[int, Int64]]:
        """Return the members that are near to no earlier one returned, each with those that are near to it."""
        digests, is_short = np.frombuffer(self._digests, dtype=np.uint64), np.frombuffer(self._is_short, dtype=bool)
        stars = []
        while len(members) > 1:
            first, members = int(members[0]), members[1:]
            near = np.empty(len(members), dtype=bool)
            for start in range(0, len(members), 1 << 14):
                block = signatures[members[start : start + (1 << 14)]]
                near[start : start + len(block)] = (block == signatures[first]).mean(axis=1) >= self.similarity
            near &= ~(is_short[first] | is_short[members]) | (digests[members] == digests[first])
            stars.append((first, members[near]))
            members = members[~near]
        return stars


def _equal_runs(values: npt.NDArray[np.generic]) -> Iterator[Int64]:
    """Yield the places of equal values, increasing, for each value that occurs more than once."""
    order = np.argsort(values, kind="stable")
    arranged = values[order]
    starts = np.flatnonzero(np.concatenate([[True], arranged[1:] != arranged[:-1]]))
    sizes = np.diff(np.append(starts, len(values)))
    chosen = np.flatnonzero(sizes > 1)
    starts, sizes = starts[chosen], sizes[chosen]
    del arranged, chosen
    for start, size in zip(starts, sizes, strict=True):
        yield order[start : start + size]


def _leader(leaders: Int64, place: int) -> int:
    """Return the first of a document's cluster so far, halving the path to it."""
    while (above := int(leaders[place])) != place:
        leaders[place] = leaders[above]
        place = int(leaders[place])
    return place


def _unite(leaders: Int64, one: int, other: int) -> None:
    first, second = sorted((_leader(leaders, one), _leader(leaders, other)))
    leaders[second] = first


def _flatten(leaders: Int64) -> None:
    """Let each document name the first of its cluster; each names an earlier one or itself."""
    while not np.array_equal(above := leaders[leaders], leaders):
        leaders[:] = above
