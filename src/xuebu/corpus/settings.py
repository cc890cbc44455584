"""Settings of the corpus: what a sentence must be, what is held out, and what a corpus must reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from xuebu.config import Range
from xuebu.errors import ConfigError

TxtDocuments = Literal["file", "blank-line"]
Script = Literal["", "hans", "hant"]
Conversion = Literal["none", "t2s", "tw2s", "tw2sp", "hk2s", "s2t", "s2tw", "s2twp", "s2hk"]
Variant = Literal["", "zh-hans", "zh-hant", "zh-cn", "zh-tw", "zh-hk", "zh-mo", "zh-sg", "zh-my"]
Markup = Literal["plain", "markdown", "wikitext"]
Quality = Literal["gopher", "c4", "fineweb2"]
Personal = Literal["email", "phone", "id_number"]
Layout = Literal["prose", "lines", "rows"]
Unit = Literal["document", "paragraph", "sentence"]
Field = Literal["id", "title", "group", "source", "script", "revision", "licence", "fetched_at", "domain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """How documents become a corpus."""

    layout: Layout = "prose"
    """What the files hold: "prose" is cut into sentences; of "lines", each is a sentence; of "rows" (.tsv, .csv,
    .jsonl, .txt), each is a document of one or two sentences in columns of their own, such as a pair of questions."""

    sentence_ends: Literal["chinese", "latin"] = "chinese"
    """What ends a sentence of prose: "chinese" 。！？； and their kin, of Japanese too; "latin" . ! ? where a capital
    or a digit follows after white space, abbreviations apart."""

    row_columns: Annotated[int, Range(1, 2)] = 2
    """With "rows": how many columns are sentences. One more may follow, a label, which is not read."""

    token_ids: bool = False
    """With "lines" and "rows": the sentences are token ids parted by spaces, of text that was made anonymous. Nothing
    is cleaned, lengths are counted in ids, and no id above 131,067 is taken."""

    min_sentence_characters: Annotated[int, Range(1, 10_000)] = 10
    """Shortest sentence that is kept, in characters. Classical Chinese wants about 4."""

    max_sentence_characters: Annotated[int, Range(1, 10_000)] = 200
    """Longest sentence that is kept, in characters."""

    min_han_share: Annotated[float, Range(0.0, 1.0)] = 0.3
    """Smallest share of Han characters among all characters of a sentence. At 0.5, one Wikipedia sentence in twenty
    is lost, for its dates and foreign names; 0 takes any script."""

    deduplicate: bool = True
    """Keep only the first of equal documents, paragraphs and sentences. Whatever is set, no sentence is both trained on
    and held out."""

    deduplicate_unit: Unit = "sentence"
    """Smallest unit of which copies are dropped, with all larger ones: "sentence" drops every sentence that occurred
    before; "paragraph" and "document" leave such a sentence where its neighbors are new."""

    near_duplicates: Literal["ignore", "group", "drop"] = "ignore"
    """Documents that are near-duplicates of an earlier one: "ignore" them, "group" them with it, so that both fall on
    one side of the held-out split, or "drop" them."""

    near_duplicate_similarity: Annotated[float, Range(0.5, 1.0)] = 0.8
    """Share of common runs of 5 characters among all of two documents (Jaccard, estimated to about 0.035) from which
    they are near-duplicates. Documents under 50 letters and digits must be equal in these."""

    held_out_fraction: Annotated[float, Range(0.0, 0.5)] = 0.1
    """Share of the groups (titles) that is held out; 0 holds nothing out. 2,000 held-out predictions take about 14,000
    characters: a corpus of a million documents has enough with 0.005."""

    shared_run: Annotated[int, Range(8, 1_000)] = 20
    """A held-out document with three or more runs of so many letters and digits that are also in training is refused;
    marks and spaces are left out. Scripts of letters want about 64: twenty letters are four words."""

    txt_documents: TxtDocuments = "file"
    """What a document is in a .txt file: the whole "file", or lines up to the next "blank-line"."""

    script: Script = ""
    """Script of documents that do not state theirs: "hans", "hant", or "" for not known."""

    markup: Markup = "plain"
    """What the texts of .txt, .jsonl, .parquet and data sets of the hub are written in: "plain", "markdown" or
    "wikitext". Files .md are always Markdown, dumps always wikitext."""

    dump_namespaces: tuple[int, ...] = (0,)
    """Namespaces of a wiki's dump whose pages are read; 0 holds the articles."""

    wiki_variant: Variant = ""
    """Variant of Chinese shown where wikitext offers several, -{zh-hans:..;zh-hant:..}-; "" takes the first."""

    convert: Conversion = "none"
    """Conversion of the script by OpenCC: "t2s", "tw2s", "hk2s" to simplified, "tw2sp" with the mainland's words too;
    "s2t", "s2tw", "s2hk", "s2twp" to traditional. Documents that state the target script stay as they are. Needs the
    extra `collect`."""

    repair_encoding: bool = False
    """Repair lines of UTF-8 that were read as Latin-1 or Windows-1252, as "é•¿" for 长. Needs the extra `collect`."""

    full_width: Literal["keep", "half"] = "keep"
    """Full-width letters, digits and signs (Ａ１＋): "keep" them, or write them "half" wide. Chinese marks stay."""

    punctuation: Literal["keep", "chinese"] = "keep"
    """Half-width marks , ; : ! ? ( ): "keep" them, or write them as "chinese" ones where they follow a Han character;
    the full stop too where it ends a paragraph."""

    mask_personal: tuple[Personal, ...] = ()
    """Personal data that is replaced by a placeholder: "email", "phone", "id_number" (checked by its check digit)."""

    min_document_han_share: Annotated[float, Range(0.0, 1.0)] = 0.0
    """Smallest share of Han among the letters of a document; 0 takes any."""

    quality: tuple[Quality, ...] = ()
    """Published rules that a document must pass: "gopher", "c4", "fineweb2" (its thresholds for Chinese). For text from
    the web; the first two were made for English. "gopher" and "fineweb2" need rjieba (extra `train`)."""

    write_refused: bool = False
    """Also write every refused text to refused.jsonl."""

    def __post_init__(self) -> None:
        if self.min_sentence_characters > self.max_sentence_characters:
            raise ConfigError(
                f"`min_sentence_characters` ({self.min_sentence_characters}) must not exceed "
                f"`max_sentence_characters` ({self.max_sentence_characters})"
            )
        if self.token_ids and self.layout == "prose":
            raise ConfigError('`token_ids` needs `layout` = "lines" or "rows": ids have no sentences to be found')


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """What `xuebu corpus verify` asks of a corpus; the defaults are the published study's five conditions."""

    min_sentences: Annotated[int, Range(0)] = 100_000
    """Smallest number of sentences, training and held out."""

    min_vocabulary: Annotated[int, Range(0)] = 10_000
    """Smallest number of distinct characters."""

    min_mean_length: Annotated[float, Range(0.0)] = 30.0
    """Smallest mean length of a sentence, in characters."""

    max_mean_length: Annotated[float, Range(0.0)] = 100.0
    """Largest mean length of a sentence, in characters."""

    max_duplicate_share: Annotated[float, Range(0.0, 1.0)] = 0.05
    """Share of the corpus's sentences that repeat an earlier one must be below this."""

    required_fields: tuple[Field, ...] = ("id", "group", "source")
    """Fields that every document must have filled; add "title" or "licence" where the corpus is to be published."""
