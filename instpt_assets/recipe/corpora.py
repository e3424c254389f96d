"""Recipe of the corpora: where documents come from."""

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from instpt_assets.recipe.base import LATER, Part
from instpt_assets.recipe.sources import Source

Format = Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "txt", "txt.gz", "txt.zst"]


class Corpus(Part):
    """One corpus: every file behind `source` is a shard, or several."""

    source: Source
    """A file, a folder, a glob, `s3://…`, `hf://…`, or `pydoc://<set>` (documentation installed beside this Python; query: `include`, `exclude`: dotted module prefixes, comma-separated; `shards`: how many). Relative paths follow the current folder, not the recipe's."""
    format: Format | None = None
    """Format of the files; by default told by each file's ending. A line of JSON Lines is a record or a list of records."""
    text_field: str = "text"
    """The field (JSON Lines, Parquet) that holds a document's text."""
    id_field: str | None = None
    """The field that holds a document's id; by default ids are the file's name and the record's position."""
    license: str | None = None
    """Licence of all documents; by default a record's own `license` field, if it has one."""
    documents_per_shard: Annotated[int | None, LATER] = Field(default=None, ge=1)
    """Cut each file into shards of so many records (lines, rows, texts; a rejected one counts). What is appended to a file changes its last shard and adds new ones. By default a file is one shard."""
    document_separator: Annotated[str | None, LATER] = Field(default=None, min_length=1)
    """What stands between the documents of a text file, wherever exactly these characters occur: `<|endoftext|>`; for a line of its own, `"\n=====\n"`. By default a text file is one document."""

    @model_validator(mode="after")
    def _applies(self) -> Self:
        if self.source.startswith("pydoc://"):
            given = [
                name for name in ("format", "text_field", "id_field", "documents_per_shard", "document_separator") if self._is_given(name)
            ]
            if given:
                more = ": of documentation, write pydoc://…?shards=…" if "documents_per_shard" in given else ""
                raise ValueError(f"{' and '.join(given)}: for files, and documentation has none{more}")
        elif self.format is not None:
            self.check_formats([self.format])
        return self

    def check_formats(self, formats: Collection[Format]) -> None:
        """See that the fields that are given say something of files of these formats.

        Raises:
            ValueError: one says nothing of any of them; the message names it.
        """
        kinds = {name.split(".")[0] for name in formats}
        told = ", ".join(sorted(set(formats)))
        if kinds and "txt" not in kinds and self.document_separator is not None:
            raise ValueError(f"document_separator is for text files, and the corpus's format is {told}")
        if kinds == {"txt"}:
            given = [name for name in ("text_field", "id_field") if self._is_given(name)]
            if given:
                raise ValueError(f"{' and '.join(given)}: records have fields, and a text file ({told}) has none")
            if self.documents_per_shard is not None and self.document_separator is None:
                raise ValueError(f"documents_per_shard: a text file ({told}) is one document where document_separator is not given")

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)
