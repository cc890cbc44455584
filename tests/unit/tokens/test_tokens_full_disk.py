"""A store on a disk that is full is refused by an error, not ended by a signal."""

import errno
import os

import pytest

from xuebu.corpus.document import SentenceDocument
from xuebu.tokens.build import build_store
from xuebu.tokens.settings import StoreSettings
from xuebu.tokens.store import METADATA
from xuebu.tokens.vocab import SPECIAL_TOKENS, Vocabulary


def test_space_for_the_sorted_sentences_is_taken_before_they_are_mapped(tmp_path, monkeypatch):
    asked = []

    def full(descriptor, offset, length):
        asked.append(length)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    documents = [SentenceDocument(id="1", title="", group="1", source="s", sentences=("好", "好"))]
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "好"))
    with pytest.raises(OSError, match="No space left"):
        build_store(documents, vocabulary, tmp_path / "s", StoreSettings(segmenter="none"), corpus_digest="x")
    assert asked == [16]
    assert not (tmp_path / "s" / METADATA).exists()
    monkeypatch.undo()
    assert build_store(
        documents, vocabulary, tmp_path / "s", StoreSettings(segmenter="none"), corpus_digest="x"
    ).pool_sentences.tolist() == [0, 1]
