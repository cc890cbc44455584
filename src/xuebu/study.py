"""The whole way: raw text, corpus, vocabulary, stores, pretraining, scores, analysis, charts, report.

Each stage leaves a mark when it is complete (the file written last), so a study that was interrupted at any moment
goes on where it stopped, and one that is complete is only read.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xuebu.analysis.analyze import Analysis, analyze_history
from xuebu.batches.loader import Loader
from xuebu.batches.preview import report_masks
from xuebu.config import settings_from, to_table, to_toml
from xuebu.corpus.build import build_corpus
from xuebu.corpus.card import load_card
from xuebu.corpus.document import CorpusFile, Document
from xuebu.corpus.sample import sample_documents
from xuebu.corpus.sources import read_documents
from xuebu.errors import ConfigError
from xuebu.files import read_json, sha256_bytes, write_atomic, write_json
from xuebu.history.records import read_history
from xuebu.infer.fill import fill_mask
from xuebu.model.pretrained import load_pretrained
from xuebu.progress import SILENT, Progress, Task
from xuebu.report.page import write_report
from xuebu.rng import draw_bits, key_of
from xuebu.tokens.build import build_store
from xuebu.tokens.segmenters import write_words
from xuebu.tokens.settings import VocabularySettings
from xuebu.tokens.statistics import learn_words
from xuebu.tokens.store import Store
from xuebu.tokens.vocab import Vocabulary, load_vocabulary, train_vocabulary
from xuebu.train.folder import RunFolder, read_run_facts
from xuebu.train.initial import adopt_initial
from xuebu.train.machine import find_device, prepare
from xuebu.train.parallel import ALONE, World, leave_world
from xuebu.train.scoring import score_model
from xuebu.train.session import is_finished, locked, resume_run, start_run
from xuebu.train.settings import Recipe
from xuebu.train.trainer import Outcome, StopRequest

NUM_FILLS = 3
NUM_EXAMPLES = 2
_FILL_LENGTHS = range(16, 41)
_HAN = range(0x4E00, 0xA000)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Paths of a study: a run folder with what the run was made from."""

    path: Path

    @property
    def run(self) -> RunFolder:
        """The run, in the same folder."""
        return RunFolder(self.path)

    @property
    def study_toml(self) -> Path:
        """Recipe and inputs as asked for."""
        return self.path / "study.toml"

    @property
    def corpus(self) -> Path:
        """The built corpus."""
        return self.path / "corpus"

    @property
    def vocabulary(self) -> Path:
        """The vocabulary."""
        return self.path / "vocab"

    @property
    def words(self) -> Path:
        """Words learned from the training text, where the segmenter is "statistics"."""
        return self.path / "words.txt"

    def store(self, split: str) -> Path:
        """The token store of a split, "train" or "held_out"."""
        return self.path / "store" / split


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Where a study stands.

    Attributes:
        folder: its folder.
        finished: False if training was stopped early.
        reason: why it was stopped.
        step: updates done.
        analysis: what the history shows; None if the run is not finished.
    """

    folder: StudyFolder
    finished: bool
    reason: str
    step: int
    analysis: Analysis | None


def run_study(
    folder: StudyFolder,
    recipe: Recipe,
    inputs: Sequence[Path] = (),
    *,
    coverage_lists: Sequence[Path] = (),
    fresh: bool = False,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> StudyResult:
    """Take raw text to a report, going on where an earlier call stopped.

    A signal that comes while no training is going on interrupts at once: nothing that is finished is lost by it.

    Args:
        folder: where everything goes.
        recipe: everything that is set.
        inputs: files and folders of text; none: the built-in sample.
        coverage_lists: files of characters, one a line, whose coverage the corpus card tells.
        fresh: remove what an earlier study left in the folder, once the inputs are known to be there.
        progress: where to report.
        stop: how to end early, with a checkpoint.

    Raises:
        ConfigError: the folder holds a study of another recipe or of other inputs, or the device is not there.
        XuebuError: as the stages that are run.
    """
    with _interruptible(stop):
        if fresh or not folder.run.run_toml.exists():
            find_device(recipe.train)
        if fresh:
            if inputs:
                read_documents(inputs, recipe.corpus)  # a wrong name must not cost a finished study
            remove_study(folder)
        _claim(folder, recipe, inputs, coverage_lists)
        with locked(folder.run):
            if (folder.corpus / "card.json").exists():
                card = load_card(folder.corpus)
            else:
                documents: Iterable[Document] = (
                    read_documents(inputs, recipe.corpus, progress=progress) if inputs else sample_documents()
                )
                card = build_corpus(
                    documents, folder.corpus, recipe.corpus, coverage_lists=coverage_lists, progress=progress
                )
            if not folder.run.run_toml.exists():
                prepare_tokens(folder, folder.corpus, card.digest, recipe, progress=progress)
    return train_and_describe(folder, recipe, progress=progress, stop=stop)


@contextmanager
def _interruptible(stop: StopRequest | None) -> Iterator[None]:
    """Let a signal interrupt at once, where nobody asks for a request to stop."""
    if stop is None:
        yield
        return
    stop.at_once = True
    try:
        yield
    finally:
        stop.at_once = False


def make_vocabulary(
    corpus: Path, settings: VocabularySettings, out: Path, *, max_length: int = 512, progress: Progress = SILENT
) -> Vocabulary:
    """Make a vocabulary from the training side of a corpus and save it.

    Held-out text is not looked at: a character that only it has is [UNK].
    """
    with progress.task("vocabulary", unit="documents") as task:
        vocabulary = train_vocabulary(_sentences(corpus / "train.jsonl", task), settings)
    vocabulary.save(out, max_length=max_length)
    return vocabulary


def _sentences(path: Path, task: Task) -> Iterator[str]:
    for document in CorpusFile(path):
        yield from document.sentences
        task.advance()


def prepare_tokens(
    folder: StudyFolder, corpus: Path, corpus_digest: str, recipe: Recipe, *, progress: Progress = SILENT
) -> None:
    """Make the vocabulary and the token stores of a corpus, each unless it is there already.

    Raises:
        StoreError: a store that is there was made from another corpus, vocabulary or setting.
    """
    if (folder.vocabulary / "vocab.txt").exists():  # the file that is written last
        vocabulary = load_vocabulary(folder.vocabulary)
    else:
        vocabulary = make_vocabulary(
            corpus,
            recipe.vocabulary,
            folder.vocabulary,
            max_length=recipe.model.max_positions,
            progress=progress,
        )
    learns_words = recipe.store.segmenter == "statistics"
    if learns_words and not folder.words.exists():
        with progress.task("words", unit="documents") as task:
            write_words(folder.words, learn_words(_sentences(corpus / "train.jsonl", task)))
    for split in ("train", "held_out"):
        build_store(
            CorpusFile(corpus / f"{split}.jsonl"),
            vocabulary,
            folder.store(split),
            recipe.store,
            corpus_digest=corpus_digest,
            words=folder.words if learns_words else None,
            progress=progress,
        )


def prepare_run(
    folder: StudyFolder,
    corpus: Path,
    recipe: Recipe,
    *,
    vocabulary: Path | None = None,
    initial: Path | None = None,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> None:
    """Make ready what a new run on a built corpus needs, in the run's folder.

    Args:
        folder: of the new run.
        corpus: folder of a built corpus.
        recipe: its settings.
        vocabulary: a vocabulary to use; None: one is made from the corpus.
        initial: folder of a model whose weights, and vocabulary, the run begins from; None: they are drawn.
        progress: where to report.
        stop: a signal interrupts at once.

    Raises:
        ConfigError: the folder holds a run already, or the device asked for is not there.
        InputError: the corpus is not finished.
        StoreError: the folder holds token stores of something else.
    """
    if folder.run.run_toml.exists():
        raise ConfigError(f"{folder.path}: holds a run already; go on with it by --resume, or choose another --out")
    find_device(recipe.train)
    card = load_card(corpus)
    max_length = recipe.model.max_positions
    with _interruptible(stop):
        # Never one that an interrupted call left in the folder: it may be of another corpus.
        shutil.rmtree(folder.run.initial, ignore_errors=True)  # what an interrupted call left
        if initial is not None:
            adopt_initial(initial, folder.run, vocabulary).save(folder.vocabulary, max_length=max_length)
        elif vocabulary is not None:
            load_vocabulary(vocabulary).save(folder.vocabulary, max_length=max_length)
        else:
            make_vocabulary(corpus, recipe.vocabulary, folder.vocabulary, max_length=max_length, progress=progress)
        prepare_tokens(folder, corpus, card.digest, recipe, progress=progress)


def train_and_describe(
    folder: StudyFolder,
    recipe: Recipe,
    *,
    world: World = ALONE,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> StudyResult:
    """Train the run of a folder whose stores are ready, or go on with it, and describe it when it is finished."""
    if world.agree(folder.run.run_toml.exists):
        return resume_and_describe(folder, world=world, progress=progress, stop=stop)
    outcome = start_run(
        folder.run,
        recipe,
        train_store=folder.store("train"),
        held_out_store=folder.store("held_out"),
        vocabulary=folder.vocabulary,
        world=world,
        progress=progress,
        stop=stop,
    )
    return _finish(folder, outcome, world, progress, stop)


def resume_and_describe(
    folder: StudyFolder,
    *,
    inexact: bool = False,
    steps: int | None = None,
    recipe: Recipe | None = None,
    world: World = ALONE,
    progress: Progress = SILENT,
    stop: StopRequest | None = None,
) -> StudyResult:
    """Go on with the run of a folder, if it has steps left, and describe it when it is finished.

    Args:
        folder: of the run.
        inexact, steps, recipe, world, progress, stop: as in `resume_run`.
    """
    if steps is None and recipe is None and world.agree(lambda: is_finished(folder.run)):
        leave_world(world)
        analysis = None
        if world.is_main:
            with _interruptible(stop):
                analysis = describe_run(folder.run, progress=progress)
        return StudyResult(folder, True, "", read_run_facts(folder.run).recipe.train.steps, analysis)
    outcome = resume_run(
        folder.run, inexact=inexact, steps=steps, recipe=recipe, world=world, progress=progress, stop=stop
    )
    return _finish(folder, outcome, world, progress, stop)


def _finish(
    folder: StudyFolder, outcome: Outcome, world: World, progress: Progress, stop: StopRequest | None
) -> StudyResult:
    leave_world(world)  # what follows is the main process's work alone
    with _interruptible(stop):
        analysis = describe_run(folder.run, progress=progress) if outcome.finished and world.is_main else None
    return StudyResult(folder, outcome.finished, outcome.reason, outcome.step, analysis)


def describe_run(run: RunFolder, *, progress: Progress = SILENT) -> Analysis:
    """Write masks.json, baselines.json, fills.json, analysis.json, charts and report.html of a finished run.

    Scores are kept once they are there; analysis, charts and report are made anew each time.
    """
    if not (run.baselines.exists() and run.fills.exists()):
        _score(run, progress)
    with progress.task("analysis, charts, report", 3, "parts") as task:
        analysis = analyze_history(read_history(run.history), baselines=read_json(run.baselines))
        write_json(run.analysis, analysis.to_json())
        task.advance()
        write_report(run.path)
        task.advance(2)
    return analysis


def _score(run: RunFolder, progress: Progress) -> None:
    facts = read_run_facts(run)
    train_store, held_out_store = (Store.open(run.path / name) for name in (facts.train_store, facts.held_out_store))
    vocabulary = load_vocabulary(run.path / facts.vocabulary)
    prepare(facts.machine)
    model = load_pretrained(run.model).model.to(facts.machine.device)
    scores = score_model(
        model,
        facts.recipe,
        facts.machine,
        train_store=train_store,
        held_out_store=held_out_store,
        vocabulary=vocabulary,
        progress=progress,
    )
    asked = [] if model.settings.ngram_prior else fill_questions(held_out_store, vocabulary)  # it needs the counts
    fills = [
        {
            "text": text,
            "truth": truth,
            "masks": [fill.to_json() for fill in fill_mask(model, vocabulary, text, top_k=5)],
        }
        for text, truth in asked
    ]
    loader = Loader(train_store, vocabulary, facts.recipe.batches, facts.recipe.train.seed)
    write_json(run.masks, report_masks(loader, num_examples=NUM_EXAMPLES).to_json())
    write_json(run.baselines, scores)
    write_json(run.fills, fills)


def fill_questions(store: Store, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Return up to three (held-out sentence with one token masked, that token).

    Drawn by a fixed key, not picked: they show what the model does, not what it does best. Masked is the first Han
    character from the middle on; where there is none, the first word, number or letter.
    """
    questions: list[tuple[str, str]] = []
    is_special = vocabulary.special.is_special(vocabulary.num_tokens)
    sentences = np.arange(store.num_sentences)
    for sentence in sentences[np.argsort(draw_bits(key_of("fill questions"), sentences))]:
        ids = store.sentence_tokens(int(sentence))
        if len(ids) not in _FILL_LENGTHS or is_special[ids].any():
            continue
        tokens = [vocabulary.tokens[token] for token in ids]
        places = [place for place in range(len(tokens) // 2, len(tokens)) if tokens[place].isalnum()]
        if places:
            place = next((i for i in places if len(tokens[i]) == 1 and ord(tokens[i]) in _HAN), places[0])
            masked = np.where(np.arange(len(ids)) == place, vocabulary.mask_id, ids)
            questions.append((vocabulary.decode(masked), tokens[place]))
        if len(questions) == NUM_FILLS:
            break
    return questions


def remove_study(folder: StudyFolder) -> None:
    """Remove a study's folder, so that it can be made anew.

    Raises:
        ConfigError: the folder is no study of ours; nothing is removed.
        ResumeError: another process works in it.
    """
    if not folder.path.exists():
        return
    if any(folder.path.iterdir()) and not folder.study_toml.exists():
        raise ConfigError(f"{folder.path}: holds no study.toml, so it is not ours to remove; remove it yourself")
    with locked(folder.run):  # not while somebody trains in it
        shutil.rmtree(folder.path)


def _claim(folder: StudyFolder, recipe: Recipe, inputs: Sequence[Path], coverage_lists: Sequence[Path]) -> None:
    """Write study.toml, or check that it says the same as what the folder's contents were made by.

    Raises:
        ConfigError: it says something else, or the folder holds other things.
    """
    inside = next((path for path in inputs if folder.path.resolve().is_relative_to(path.resolve())), None)
    if inside is not None:
        raise ConfigError(f"{folder.path}: lies inside the input {inside}; choose another folder by --out")
    asked = {"inputs": _names(inputs), "coverage": _names(coverage_lists), "fingerprint": _fingerprint(inputs)}
    made = (folder.corpus / "card.json", folder.vocabulary, folder.store("train"), folder.run.run_toml)
    if not (folder.study_toml.exists() and any(path.exists() for path in made)):
        if not folder.study_toml.exists() and folder.path.exists() and any(folder.path.iterdir()):
            raise ConfigError(f"{folder.path}: is not empty and holds no study; choose another folder by --out")
        write_atomic(folder.study_toml, to_toml({"study": asked, **to_table(recipe)}))
        return
    try:
        table = tomllib.loads(folder.study_toml.read_text(encoding="utf-8"))
        before = {key: table["study"][key] for key in asked}
        del table["study"]
        differing = settings_from(Recipe, table, where=str(folder.study_toml)).differing_keys(recipe)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder.study_toml}: cannot be read ({error}); choose another folder by --out") from None
    differing += [key for key in ("inputs", "coverage") if before[key] != asked[key]]
    if "inputs" not in differing and before["fingerprint"] != asked["fingerprint"]:
        differing.append("size or time of the input files")
    if differing:
        raise ConfigError(
            f"{folder.path}: holds a study that differs in {', '.join(differing)}; choose another folder by --out, "
            "or make it anew with --fresh"
        )


def _names(paths: Sequence[Path]) -> list[str]:
    return [os.fsencode(path.resolve()).decode("utf-8", "backslashreplace") for path in paths]


def _fingerprint(inputs: Sequence[Path]) -> str:
    """Return a digest of names, sizes and times of the input files, "" for the built-in sample."""
    files = [file for path in inputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    facts = [f"{file}\t{file.stat().st_size}\t{file.stat().st_mtime_ns}" for file in files if file.is_file()]
    return sha256_bytes("\n".join(facts).encode("utf-8", "surrogateescape")) if facts else ""
