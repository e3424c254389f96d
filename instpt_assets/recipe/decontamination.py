"""Recipe of decontamination: what of the evaluation may stand in no document, pair or tuning context."""

from typing import Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import Name, Part
from instpt_assets.recipe.corpora import Format
from instpt_assets.recipe.sources import Files


class EvaluationSource(Part):
    """A further evaluation set, as files."""

    source: Files
    """A file, a folder, a glob or a remote URL of JSON Lines or Parquet, one record an example. A relative path follows the current folder."""
    format: Format | None = None
    """Format of the files; by default told by each file's ending."""
    fields: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The fields whose text is compared, with all strings in lists and objects in them; by default all but bookkeeping (`id`, `task`, `dataset`, `subject`, `license`, `source`, `split`, `url`)."""

    @model_validator(mode="after")
    def _has_records(self) -> Self:
        if self.format is not None and self.format.startswith("txt"):
            raise ValueError(f"format: {self.format} has no records: give the examples as JSON Lines or Parquet")
        if self.source.startswith("pydoc://"):
            raise ValueError("source: documentation holds no examples: name it as evaluation.held_out, or give files")
        return self


class Decontamination(Part):
    """Removal of documents, pairs and tuning contexts that share words with an evaluation example (Brown et al. 2020, appendix C).

    The examples are those of all tasks of the section evaluation, every one of them, and those of `sources`.
    """

    ngram_words: int = Field(default=13, ge=5, le=50)
    """n: so many consecutive words in common are an overlap. Case, punctuation and white space do not count."""
    min_words: int = Field(default=8, ge=3, le=50)
    """An example, or a line of one (a question, an option), of fewer than n words overlaps if all of it stands in a text, from this length on; what is shorter cannot be told from chance and is listed as skipped."""
    sources: dict[Name, EvaluationSource] = {}
    """Further evaluation sets by name, for benchmarks that no task of the recipe names."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_words > self.ngram_words:
            raise ValueError("min_words is larger than ngram_words")
        return self
