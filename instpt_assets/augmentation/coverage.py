"""How much of a corpus its pairs are about: vocabulary and the corpus's own terms, by words alone.

Of each corpus a uniform sample of passages, equally many where it has as many, so that corpora of different size can be compared.

- **Content words** are normalised words (`support.content_words`) of two letters or more.
- **Terms** of a corpus are content words of letters that any English text is unlikely to hold (`COMMON_WORDS` are no terms), that stand in at
  least `MIN_TERM_SHARE` of the corpus's passages and in at least `MIN_TERM_PASSAGES`, and in at least `MIN_KEYNESS` times the share of passages
  that they stand in in the recipe's other corpora, taken together.
- A passage's words are **asked** if they stand in its pairs: instruction, options, reasoning or response.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from instpt_assets.augmentation.common_words import COMMON_WORDS
from instpt_assets.augmentation.layouts import Pair
from instpt_assets.synthesis.support import content_words

MIN_TERM_SHARE = 0.005
MIN_TERM_PASSAGES = 3
MIN_KEYNESS = 2.0
_MIN_LETTERS = 3


class CoveredPassage(NamedTuple):
    """A passage of the sample and its pairs."""

    text: str
    pairs: Sequence[Pair]


class Term(NamedTuple):
    """A term of a corpus."""

    word: str
    num_passages: int
    """Passages that hold it."""
    num_asked: int
    """Of these, those whose pairs hold it."""


@dataclass(frozen=True)
class Coverage:
    """What the pairs of one corpus cover; all counts are of the sample."""

    num_passages: int
    num_words: int
    """Different content words of the passages."""
    num_asked_words: int
    """Of these, those that the pairs of a passage that holds them hold."""
    terms: Sequence[Term]
    """The most frequent first."""
    num_new_words: int
    """Different content words that stand in pairs and in no passage."""

    @property
    def vocabulary(self) -> float | None:
        """Share of the words that are asked."""
        return self.num_asked_words / self.num_words if self.num_words else None

    @property
    def num_asked_terms(self) -> int:
        """Terms that the pairs of at least one passage hold."""
        return sum(term.num_asked > 0 for term in self.terms)

    @property
    def domain(self) -> float | None:
        """Share of the terms that are asked."""
        return self.num_asked_terms / len(self.terms) if self.terms else None

    @property
    def domain_by_passage(self) -> float | None:
        """Of all places of a term in a passage, the share where the passage's own pairs hold it."""
        places = sum(term.num_passages for term in self.terms)
        return sum(term.num_asked for term in self.terms) / places if places else None


class _Words:
    """Words of one corpus: in how many passages they stand, and in the pairs of how many of these."""

    def __init__(self, passages: Sequence[CoveredPassage]) -> None:
        self.num_passages = len(passages)
        self.standing, self.asked, new = Counter[str](), Counter[str](), set[str]()
        for text, pairs in passages:
            words = _words(text)
            asked = _words(
                " \n ".join(part for pair in pairs for part in (pair.instruction, *pair.options, pair.reasoning or "", pair.response))
            )
            self.standing.update(words)
            self.asked.update(words & asked)
            new |= asked - words
        self.num_new = len(new - self.standing.keys())


def measure_coverage(samples: Mapping[str, Sequence[CoveredPassage]]) -> dict[str, Coverage]:
    """The coverage of each corpus, by name."""
    by_corpus = {name: _Words(passages) for name, passages in samples.items()}
    standing, num_passages = Counter[str](), sum(words.num_passages for words in by_corpus.values())
    for words in by_corpus.values():
        standing.update(words.standing)
    found = {}
    for name, own in by_corpus.items():
        others = num_passages - own.num_passages
        least = max(MIN_TERM_PASSAGES, MIN_TERM_SHARE * own.num_passages)
        terms = [
            Term(word, num, own.asked[word])
            for word, num in own.standing.items()
            if num >= least
            and len(word) >= _MIN_LETTERS
            and word.isalpha()
            and word not in COMMON_WORDS
            and (not others or num / own.num_passages >= MIN_KEYNESS * (standing[word] - num) / others)
        ]
        terms.sort(key=lambda term: (-term.num_passages, term.word))
        found[name] = Coverage(own.num_passages, len(own.standing), len(own.asked), terms, own.num_new)
    return found


def _words(text: str) -> set[str]:
    return {word for word in content_words(text) if len(word) > 1}
