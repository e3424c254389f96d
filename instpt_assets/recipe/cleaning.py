"""Recipe of the cleaning: what a document must be like to stay, and what is masked in it."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from instpt_assets.recipe.base import LATER, Part, matches

LANGUAGES = frozenset(
    """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da de diq dsb dty dv el eml en
    eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw
    ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl
    pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls
    vo wa war wuu xal xmf yi yo yue zh
    """.split()
)
"""Codes of the languages that the model of `corpus.languages` tells."""

Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, matches(r"\S+", "is no word: write words without white space")]
# Printable ASCII without angle brackets, and more than the letters and the slash that stand in a marker: no `<QUE>` can come about.
Placeholder = Annotated[
    str,
    StringConstraints(max_length=40),
    matches(
        r"[A-Za-z/]*[!-.0-;=?@\[-`{-~](?:[ -;=?-~]*[!-;=?-~])?",
        "cannot stand for an address: write printable ASCII without < and >, no blank at either end, and before any blank a character that is "
        "neither letter nor slash, such as [EMAIL]",
    ),
]
"""What takes the place of an address: printable ASCII, with a character that is neither letter nor slash (`[EMAIL]`), without `<` and `>`."""


class LanguageRule(Part):
    """Documents of other languages, and those whose language is doubtful, are removed (fastText's lid.176, Joulin et al. 2016)."""

    keep: tuple[str, ...] = Field(default=("en",), min_length=1)
    """ISO codes of the languages that stay (`en`, `de`, …; three letters where there are no two)."""
    min_probability: Share = 0.65
    """The model's probability of the language from which a document stays."""
    max_characters: int = Field(default=1000, ge=20)
    """So many of a document's first characters are looked at. Time grows with it: 1,000 take about 0.15 ms."""

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [code for code in keep if code not in LANGUAGES]
        if unknown:
            raise ValueError(f"unknown language {', '.join(map(repr, unknown))}: codes are {' '.join(sorted(LANGUAGES))}")
        return keep


class QualityRules(Part):
    """Gopher's rules for documents (Rae et al. 2021, section A1.1), with the paper's thresholds. A word is what stands between white space."""

    min_words: int = Field(default=50, ge=0)
    """Fewest words."""
    max_words: int = Field(default=100_000, ge=1)
    """Most words."""
    min_mean_word_length: float = Field(default=3, ge=0)
    """Shortest mean length of words, in characters."""
    max_mean_word_length: float = Field(default=10, gt=0)
    """Longest mean length of words, in characters."""
    max_hashes_per_word: float = Field(default=0.1, ge=0)
    """Most `#` signs, divided by the number of words."""
    max_ellipses_per_word: float = Field(default=0.1, ge=0)
    """Most ellipses (`…` or `...`), divided by the number of words."""
    max_bullet_lines: Share = 0.9
    """Most lines that begin with a bullet, as a share of all that are not blank."""
    bullets: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ("•", "‣", "*", "-")
    """What a bullet is."""
    max_ellipsis_lines: Share = 0.3
    """Most lines that end in an ellipsis, as a share of all that are not blank."""
    min_alphabetic_words: Share = 0.8
    """Fewest words with at least one letter, as a share of all."""
    min_stop_words: int = Field(default=2, ge=0)
    """Fewest different ones of the stop words, letter case apart."""
    stop_words: tuple[Word, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The stop words; give others (or `min_stop_words: 0`) for other languages."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_words < self.min_words:
            raise ValueError("max_words is smaller than min_words")
        if self.max_mean_word_length < self.min_mean_word_length:
            raise ValueError("max_mean_word_length is smaller than min_mean_word_length")
        if self.min_stop_words > len({word.lower() for word in self.stop_words}):
            raise ValueError("min_stop_words is larger than the number of stop_words")
        for name, bound, is_off in (
            ("stop_words", "min_stop_words", self.min_stop_words == 0),
            ("bullets", "max_bullet_lines", self.max_bullet_lines == 1),
        ):
            if is_off and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: without effect where {bound} is {getattr(self, bound):g}")
        return self


class RepetitionRules(Part):
    """Gopher's rules against repetition (Rae et al. 2021, table A1), with the paper's thresholds: shares of lines, paragraphs or characters.

    Lines and paragraphs that are blank count for nothing, nor does white space. 1 switches a rule off.
    """

    max_duplicate_lines: Share = 0.30
    """Most lines that have stood before."""
    max_duplicate_paragraphs: Share = 0.30
    """Most paragraphs that have stood before; between paragraphs there are blank lines."""
    max_duplicate_line_characters: Share = 0.20
    """Most characters in lines that have stood before."""
    max_duplicate_paragraph_characters: Share = 0.20
    """Most characters in paragraphs that have stood before."""
    max_top_2_gram: Share = 0.20
    """Most characters in the 2-gram of words that occurs most often (of those that occur twice or more), all occurrences together."""
    max_top_3_gram: Share = 0.18
    """As `max_top_2_gram`, of 3-grams."""
    max_top_4_gram: Share = 0.16
    """As `max_top_2_gram`, of 4-grams."""
    max_duplicate_5_grams: Share = 0.15
    """Most characters in 5-grams of words that have stood before; a character in several of them counts once."""
    max_duplicate_6_grams: Share = 0.14
    """As `max_duplicate_5_grams`, of 6-grams."""
    max_duplicate_7_grams: Share = 0.13
    """As `max_duplicate_5_grams`, of 7-grams."""
    max_duplicate_8_grams: Share = 0.12
    """As `max_duplicate_5_grams`, of 8-grams."""
    max_duplicate_9_grams: Share = 0.11
    """As `max_duplicate_5_grams`, of 9-grams."""
    max_duplicate_10_grams: Share = 0.10
    """As `max_duplicate_5_grams`, of 10-grams."""


class Masks(Part):
    """Addresses of persons and machines are replaced (`corpus.masking` says what an address is); `null` leaves a kind as it is.

    In the texts of `clean_corpus` and what comes of them: metadata, documents that were removed, `raw_corpus` and the page of duplicates
    show what the source holds.
    """

    email: Placeholder | None = "email@example.com"
    """In place of an e-mail address; by default one that is nobody's (RFC 2606)."""
    ipv4: Placeholder | None = "192.0.2.1"
    """In place of a public IPv4 address; by default one for documentation (RFC 5737)."""
    ipv6: Placeholder | None = "2001:db8::1"
    """In place of a public IPv6 address; by default one for documentation (RFC 3849)."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.email is None and self.ipv4 is None and self.ipv6 is None:
            raise ValueError("all kinds are null, so nothing would be masked: leave mask out")
        return self


class Cleaning(Part):
    """What a document must be like to stay in `clean_corpus`, and what is masked in it. Steps are off where they are not given."""

    min_characters: int = Field(default=1, ge=1)
    """Shortest text kept, in characters after normalising."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longest text kept, in characters; none by default."""
    language: Annotated[LanguageRule | None, LATER] = None
    """The languages that stay; `{}`: English."""
    quality: Annotated[QualityRules | None, LATER] = None
    """Rules for words and lines; `{}`: Gopher's."""
    repetition: Annotated[RepetitionRules | None, LATER] = None
    """Rules against repetition; `{}`: Gopher's."""
    mask: Annotated[Masks | None, LATER] = None
    """Masking of addresses; `{}`: e-mail and public IP addresses."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError("max_characters is smaller than min_characters")
        return self
