"""What is compared: anything that scores the passages of a site, their sentences, and whether a question is answered at all.

A ranker of another module takes part with `--ranker MODULE:NAME`, where NAME is a callable without arguments that returns one.
Those that work with vectors of an encoder need no more than `Vectors(name, encode)`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from app.content.search import DEPTH, FUSION_K, Hit
from benchmarks.report_card.sites import Question, Site
from workers.answer.fuse import fuse
from workers.answer.query import follow_up_probability
from workers.answer.retrieve import LIMIT
from workers.answer.select import PassageCandidate, content_stems, select
from workers.ingest.embed import passage_text, sentence_texts

# Okapi BM25 (Robertson & Zaragoza, 2009, section 3.4).
K1, B = 1.2, 0.75
# The product's words are weighed so in a title and in the text: PostgreSQL's weights A and B.
TITLE_WEIGHT, TEXT_WEIGHT = 1.0, 0.4
PASSAGES = 5  # of the best passages the sentences are ranked

Encode = Callable[[Sequence[str]], np.ndarray]
Picked = list[tuple[int, str]]  # (place of the passage, verbatim sentence)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is searched: alone, or joined with what it follows."""

    question: Question
    joined: bool

    @property
    def text(self) -> str:
        return f"{self.question.before} {self.question.text}" if self.joined else self.question.text


class Ranker(ABC):
    """Scores of one way to search. All scores are only compared with others of the same ranker; higher is better."""

    name: str

    def prepare(self, asked: Sequence[Question]) -> None:  # noqa: B027
        """Called once with all questions before the first is scored, for what is cheaper done together."""

    @abstractmethod
    def joins(self, question: Question) -> bool:
        """Whether a message that stands after others is searched together with them."""

    @abstractmethod
    def passage_scores(self, asked: Asked) -> np.ndarray:
        """float [passages of the site]."""

    @abstractmethod
    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        """For each of the candidate passages float [sentences]."""

    def answerability(self, asked: Asked, places: Sequence[int]) -> float:
        """How sure it is that the site answers; `places` are its best passages, best first. By default its best sentence's score."""
        return max((float(scores.max()) for scores in self.sentence_scores(asked, places) if len(scores)), default=-math.inf)

    def selected(self, asked: Asked, ranked: Sequence[int], scores: np.ndarray) -> Picked | None:
        """The product's own selection from these candidates (`ranked`: all places, best first); None where it needs vectors."""
        return None


class Vectors(Ranker):
    """Cosines of an encoder's vectors, made of the same texts as in the product. `encode` gives normalised rows.

    `cache` is a folder in which vectors of the sites are kept; `fingerprint` names the weights there.
    """

    def __init__(self, name: str, encode: Encode, *, cache: Path | None = None, fingerprint: str | None = None) -> None:
        self.name = name
        self._encode = encode
        self._cache = cache
        self._fingerprint = fingerprint or name
        self._asked: dict[str, np.ndarray] = {}
        self._sites: dict[str, tuple[np.ndarray, list[np.ndarray]]] = {}

    def prepare(self, asked: Sequence[Question]) -> None:
        texts = sorted({text for one in asked for text in (one.text, one.before) if text and text not in self._asked})
        self._asked.update(zip(texts, self._kept(texts), strict=True))
        for site in {one.site.package: one.site for one in asked}.values():
            self._site(site)

    def vector(self, asked: Asked) -> np.ndarray:
        own = self._asked[asked.question.text]
        if not asked.joined:
            return own
        both = own + self._asked[asked.question.before]
        return both / np.linalg.norm(both)

    def joins(self, question: Question) -> bool:
        """As workers.answer.query decides: by the words and by what is found for each way."""
        if not question.before:
            return False
        alone, joined = (self.cosines(Asked(question, way)).max() for way in (False, True))
        return follow_up_probability(question.text, float(alone - joined)) >= 0.5

    def cosines(self, asked: Asked) -> np.ndarray:
        return self._site(asked.question.site)[0] @ self.vector(asked)

    def passage_scores(self, asked: Asked) -> np.ndarray:
        return self.cosines(asked)

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        vector, sentences = self.vector(asked), self._site(asked.question.site)[1]
        return [sentences[place] @ vector for place in places]

    def selected(self, asked: Asked, ranked: Sequence[int], scores: np.ndarray) -> Picked:
        site, cosines = asked.question.site, self.cosines(asked)
        sentences = self._site(site)[1]
        candidates = [
            PassageCandidate(
                place, site.passages[place].title, [], site.passages[place].text, site.spans[place], sentences[place],
                max(float(scores[place]), 0.0), float(cosines[place]),
            )
            for place in ranked[:LIMIT]
        ]  # fmt: skip
        chosen = select(self.vector(asked), candidates, question=asked.text).sentences
        return [(int(str(one.passage_id)), one.text) for one in chosen]

    def _site(self, site: Site) -> tuple[np.ndarray, list[np.ndarray]]:
        """(vectors of the passages, of the sentences of each), as ingest makes them."""
        if site.package not in self._sites:
            drafts = [_draft(one.text, spans) for one, spans in zip(site.passages, site.spans, strict=True)]
            texts = [passage_text(one.title, draft) for one, draft in zip(site.passages, drafts, strict=True)]
            sentences = [sentence_texts(one.title, draft) for one, draft in zip(site.passages, drafts, strict=True)]
            vectors = self._kept(texts + [sentence for group in sentences for sentence in group])
            ends = np.cumsum([len(texts), *map(len, sentences)])
            self._sites[site.package] = vectors[: len(texts)], np.split(vectors[len(texts) :], ends[1:-1] - len(texts))
        return self._sites[site.package]

    def _kept(self, texts: Sequence[str]) -> np.ndarray:
        if self._cache is None or not texts:
            return self._encode(texts)
        digest = hashlib.sha256("\0".join([self._fingerprint, *texts]).encode()).hexdigest()[:16]
        path = self._cache / f"vectors-{digest}.npy"
        if path.exists():
            return np.load(path)
        vectors = self._encode(texts)
        self._cache.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
        return vectors


class Words(Ranker):
    """BM25 over a site's passages and, for sentences, over its sentences; stems as in the product's selection.

    Whether a message is joined with those before is the encoder's decision: `reader`.
    """

    def __init__(self, reader: Ranker, name: str = "BM25") -> None:
        self.name = name
        self._reader = reader
        self._passages: dict[str, Bm25] = {}
        self._sentences: dict[str, tuple[Bm25, np.ndarray]] = {}

    def prepare(self, asked: Sequence[Question]) -> None:
        self._reader.prepare(asked)

    def joins(self, question: Question) -> bool:
        return self._reader.joins(question)

    def passage_scores(self, asked: Asked) -> np.ndarray:
        site = asked.question.site
        if site.package not in self._passages:
            self._passages[site.package] = Bm25([content_stems(one.whole) for one in site.passages])
        return self._passages[site.package].scores(content_stems(asked.text))

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        site = asked.question.site
        if site.package not in self._sentences:
            groups = [site.sentences(place) for place in range(len(site.passages))]
            every = Bm25([content_stems(sentence) for group in groups for sentence in group])
            self._sentences[site.package] = every, np.cumsum([0, *map(len, groups)])
        every, starts = self._sentences[site.package]
        scores = every.scores(content_stems(asked.text))
        return [scores[starts[place] : starts[place + 1]] for place in places]


class Hybrid(Vectors):
    """Reciprocal rank fusion of the nearest vectors and a search by words; sentences by vectors."""

    def __init__(self, name: str, vectors: Vectors, words: Callable[[Asked], np.ndarray]) -> None:
        super().__init__(name, vectors._encode, cache=vectors._cache, fingerprint=vectors._fingerprint)
        self._asked, self._sites = vectors._asked, vectors._sites  # the same vectors, made once
        self._words = words

    def passage_scores(self, asked: Asked) -> np.ndarray:
        cosines, words = self.cosines(asked), self._words(asked)
        fused = np.zeros(len(cosines))
        for scores in (cosines, np.where(words > 0, words, -np.inf)):
            order = [place for place in np.argsort(-scores, kind="stable")[:DEPTH] if np.isfinite(scores[place])]
            fused[order] += 1 / (FUSION_K + np.arange(1, len(order) + 1))
        return fused + 1e-9 * cosines  # beyond what either found, by vectors


class Product(Vectors):
    """What the product does: the nearest vectors and the search by words, ranked together by workers.answer.fuse."""

    def __init__(self, name: str, vectors: Vectors, words: Callable[[Asked], np.ndarray]) -> None:
        super().__init__(name, vectors._encode, cache=vectors._cache, fingerprint=vectors._fingerprint)
        self._asked, self._sites = vectors._asked, vectors._sites
        self._words = words

    def passage_scores(self, asked: Asked) -> np.ndarray:
        cosines, words = self.cosines(asked), self._words(asked)
        site, sentences = asked.question.site, self._site(asked.question.site)[1]
        worded = [place for place in np.argsort(-words, kind="stable")[:DEPTH] if words[place] > 0]
        places = dict.fromkeys([*np.argsort(-cosines, kind="stable")[:DEPTH].tolist(), *worded])
        hits = [
            Hit(
                UUID(int=place), UUID(int=place), site.passages[place].title, "", [], None, site.passages[place].text,
                [list(span) for span in site.spans[place]], sentences[place].astype(np.float16).tobytes(),
                float(cosines[place]), 0.0, float(words[place]),
            )
            for place in map(int, places)
        ]  # fmt: skip
        scores = cosines - 10.0  # what neither found comes after all, by vectors
        for hit in fuse(self.vector(asked), asked.text, hits, len(hits)):
            scores[hit.passage_id.int] = hit.score
        return scores

    def answerability(self, asked: Asked, places: Sequence[int]) -> float:
        """What the first gate mostly looks at: the best passage's and the best sentence's cosine."""
        return float(self.cosines(asked).max()) + super().answerability(asked, places)


class Summed(Vectors):
    """A passage by its own cosine, its best sentence's and its words; a sentence by its cosine and its passage's score.

    The weights were chosen by a handful of trials on the half `choose`, with the untuned encoder.
    """

    BEST_SENTENCE, WORDS, OF_PASSAGE = 0.5, 0.1, 0.5

    def __init__(self, name: str, vectors: Vectors, words: Callable[[Asked], np.ndarray]) -> None:
        super().__init__(name, vectors._encode, cache=vectors._cache, fingerprint=vectors._fingerprint)
        self._asked, self._sites = vectors._asked, vectors._sites
        self._words = words

    def passage_scores(self, asked: Asked) -> np.ndarray:
        cosines, words = self.cosines(asked), self._words(asked)
        sentences = super().sentence_scores(asked, range(len(cosines)))
        best = np.array([scores.max() if len(scores) else -1.0 for scores in sentences])
        return cosines + self.BEST_SENTENCE * best + self.WORDS * words / max(float(words.max()), 1e-9)

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        grounds = self.passage_scores(asked)
        own = super().sentence_scores(asked, places)
        return [scores + self.OF_PASSAGE * grounds[place] for place, scores in zip(places, own, strict=True)]


class Reranked(Ranker):
    """A model that reads question and text together, over the best passages of another ranker (a cross-encoder).

    `score` takes pairs (question, text) and gives float [pairs]; a passage is put to it with its title, a sentence after it, as in the
    vectors. Passages beyond the first `depth` keep the other's order below all that were read.
    """

    def __init__(
        self, name: str, base: Ranker, score: Callable[[Sequence[tuple[str, str]]], np.ndarray], depth: int = 20
    ) -> None:
        self.name = name
        self._base, self._score, self._depth = base, score, depth

    def prepare(self, asked: Sequence[Question]) -> None:
        self._base.prepare(asked)

    def joins(self, question: Question) -> bool:
        return self._base.joins(question)

    def passage_scores(self, asked: Asked) -> np.ndarray:
        before = np.asarray(self._base.passage_scores(asked), dtype=np.float64)
        best = np.argsort(-before, kind="stable")[: self._depth]
        read = [asked.question.site.passages[int(place)] for place in best]
        found = np.asarray(
            self._score([(asked.text, passage_text(one.title, _draft(one.text, []))) for one in read]), dtype=np.float64
        )
        scores = found.min() - 1 - (before.max() - before)
        scores[best] = found
        return scores

    def sentence_scores(self, asked: Asked, places: Sequence[int]) -> list[np.ndarray]:
        site = asked.question.site
        groups = [
            sentence_texts(site.passages[place].title, _draft(site.passages[place].text, site.spans[place])) for place in places
        ]
        scores = np.asarray(self._score([(asked.text, sentence) for group in groups for sentence in group]))
        return np.split(scores, np.cumsum([len(group) for group in groups])[:-1])

    def answerability(self, asked: Asked, places: Sequence[int]) -> float:
        """The score of the best passage, read whole."""
        one = asked.question.site.passages[places[0]]
        return float(self._score([(asked.text, passage_text(one.title, _draft(one.text, [])))])[0])


def _draft(text: str, spans: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A passage as ingest knows it before it has vectors; ours have no headings beside their titles."""
    return {"heading_path": [], "text": text, "sentences": spans}


class Bm25:
    """Okapi BM25 over texts that are given as lists of terms."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._count = len(texts)
        lengths = np.array([len(text) for text in texts], dtype=np.float64)
        self._norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0))
        found: dict[str, tuple[list[int], list[int]]] = {}
        for place, text in enumerate(texts):
            for term, count in Counter(text).items():
                places, counts = found.setdefault(term, ([], []))
                places.append(place)
                counts.append(count)
        self._found = {term: (np.array(places), np.array(counts)) for term, (places, counts) in found.items()}

    def scores(self, terms: Sequence[str]) -> np.ndarray:
        scores = np.zeros(self._count)
        for term in set(terms) & set(self._found):
            places, counts = self._found[term]
            rarity = math.log(1 + (self._count - len(places) + 0.5) / (len(places) + 0.5))
            scores[places] += rarity * counts * (K1 + 1) / (counts + self._norm[places])
        return scores


class Occurrences:
    """PostgreSQL's `ts_rank_cd` for words joined by "or", as the product asks for them: then every occurrence is a cover of its own.

    So it is the number of occurrences, those in the title weighing more (calc_rank_cd in tsrank.c); its stemmer is Snowball's,
    ours is the one of the product's selection.
    """

    def __init__(self) -> None:
        self._sites: dict[str, list[Counter[str]]] = {}

    def __call__(self, asked: Asked) -> np.ndarray:
        site = asked.question.site
        if site.package not in self._sites:
            self._sites[site.package] = [_weighed(one.title, one.text) for one in site.passages]
        wanted = set(content_stems(asked.text))
        return np.array([sum(counts[term] for term in wanted) for counts in self._sites[site.package]])


def _weighed(title: str, text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for words, weight in ((title, TITLE_WEIGHT), (text, TEXT_WEIGHT)):
        for term in content_stems(words):
            counts[term] += weight  # type: ignore[assignment]
    return counts
