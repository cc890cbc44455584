"""From texts to a corpus, a vocabulary and a token store, and a look at one training batch. Needs no torch.

    python examples/prepare_data.py [FILE OR FOLDER ...] [--out FOLDER]

Without inputs it takes the built-in sample.
"""

import argparse
from pathlib import Path

from xuebu.batches.batch import NO_PAIR
from xuebu.batches.loader import Loader
from xuebu.batches.settings import BatchSettings
from xuebu.corpus.build import build_corpus
from xuebu.corpus.document import CorpusFile
from xuebu.corpus.sample import sample_documents
from xuebu.corpus.settings import CorpusSettings
from xuebu.corpus.sources import read_documents
from xuebu.study import make_vocabulary
from xuebu.tokens.build import build_store
from xuebu.tokens.settings import StoreSettings, VocabularySettings

parser = argparse.ArgumentParser(description="From texts to a token store, and a look at one training batch.")
parser.add_argument("inputs", nargs="*", type=Path, help="files and folders of text; none: the built-in sample")
parser.add_argument("--out", type=Path, default=Path("runs/prepared"), help="where corpus, vocabulary and store go")
arguments = parser.parse_args()
corpus = arguments.out / "corpus"

settings = CorpusSettings(held_out_fraction=0.1, write_refused=True)
documents = read_documents(arguments.inputs, settings) if arguments.inputs else sample_documents()
card = build_corpus(documents, corpus, settings)
print(f"CORPUS {corpus}\n{card.summary()}\n")

vocabulary = make_vocabulary(corpus, VocabularySettings(min_count=2), arguments.out / "vocab")
print(f"VOCABULARY {arguments.out / 'vocab'}\n{vocabulary.summary()}\n")

train_documents = CorpusFile(corpus / "train.jsonl")
folder = arguments.out / "store" / card.train_digest[:12]  # a store belongs to one corpus
store = build_store(train_documents, vocabulary, folder, StoreSettings(), corpus_digest=card.digest)
print(f"STORE {folder}\n{store.summary()}\n")

batch = Loader(store, vocabulary, BatchSettings(sequences_per_step=4), seed=0).batch(1)
print(f"BATCH of step 1: {batch.num_rows} sequences, {batch.num_tokens} tokens, {batch.num_predictions} to predict")
for row, (start, stop) in enumerate(zip(batch.row_offsets[:-1], batch.row_offsets[1:], strict=True)):
    label = {1: "b follows a", 0: "b is of another document", NO_PAIR: "not judged"}[int(batch.nsp_labels[row])]
    here = (batch.masked_positions >= start) & (batch.masked_positions < stop)
    print(f"{label}: {vocabulary.decode(batch.input_ids[start:stop])}")
    print(f"    to predict, in order: {' '.join(vocabulary.tokens[token] for token in batch.labels[here])}")
