"""Cleaning a shard: which documents stay, and what is masked in them. What is removed is kept beside them with the reason.

Steps, the cheapest first; each sees what those before it left, and the first rule that a document breaks is its reason:

1. `duplicates`: it stands on the shard's removal list (`duplicate_documents`).
2. `length`: too few or too many characters.
3. `language`: of another language than those kept, or doubtful (`corpus.languages`).
4. `quality`: Gopher's rules for words and lines (`corpus.gopher`).
5. `repetition`: Gopher's rules against repetition (`corpus.gopher`).
6. `contamination`: it shares words with an evaluation example (`corpus.contamination`).

In what stays, addresses are masked (`corpus.masking`). Duplicates are told by the texts before masking.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from instpt_assets.corpus.cleaning_report import CleaningReport, warning_of_nothing_left
from instpt_assets.corpus.contamination import CONTAMINATED, ContaminationIndex
from instpt_assets.corpus.duplicates_report import warning_of_ids
from instpt_assets.corpus.gopher import Gopher
from instpt_assets.corpus.languages import tell_language
from instpt_assets.corpus.masking import Masker
from instpt_assets.corpus.overlaps_report import OverlapsReport
from instpt_assets.corpus.tables import DOCUMENTS, TableWriter, batched, read_rows
from instpt_assets.recipe.cleaning import Cleaning, LanguageRule

REMOVED = pa.schema([*DOCUMENTS, ("step", pa.string()), ("reason", pa.string())])
"""Columns of `removed.parquet`: the document as it was, the step that removed it, and why, with the measured value and what is allowed."""
MASKED = pa.schema([("document_id", pa.string()), ("kind", pa.string()), ("start", pa.int64()), ("length", pa.int64())])
"""Columns of `masked.parquet`: where something was masked, in characters of the text in `raw_corpus`; what it was stands there alone."""

SAME_ID = "id of another document"

_BATCH_CHARACTERS = 1 << 18  # the arrays of a batch stay in the processor's cache
_BATCH_ROWS = 4096

Row = dict[str, Any]


class Removal(NamedTuple):
    """Why a document does not stay."""

    step: str
    reason: str


Check = Callable[[Sequence[Row]], Iterable[Removal | None]]
"""Judges documents: of each why it is removed, or None."""


def clean(
    tables: Sequence[Path],
    removal_list: Path,
    cleaning: Cleaning,
    *,
    out: Path,
    contamination: ContaminationIndex | None = None,
) -> dict[str, Any]:
    """Write the documents that stay (`data-*.parquet`), those that do not (`removed.parquet`), and a page.

    With masking also the masked places (`masked.parquet`), with `contamination` a report of what overlapped. Memory follows the largest
    document, not the shard.

    Args:
        tables: the parts of a shard's `raw_corpus`.
        removal_list: the shard's file of `duplicate_documents`.
        cleaning: the rules.
        out: an existing folder.
        contamination: the index of evaluation examples, where the recipe decontaminates.

    Returns:
        num_read = num_documents + num_removed, num_characters (of what stays), removed_by_reason, steps (what each saw, removed and left),
        what was masked, overlaps_by_task; a warning where ids are not unique or nothing is left.

    Raises:
        ValueError: the removal list is one of other documents.
    """
    masker = Masker(cleaning.mask) if cleaning.mask is not None else None
    report = CleaningReport(_steps(cleaning, contamination is not None), masker)
    with ExitStack() as stack:
        kept = stack.enter_context(TableWriter(out, "data", DOCUMENTS))
        removed = stack.enter_context(TableWriter(out, "removed.parquet", REMOVED))
        masked = stack.enter_context(TableWriter(out, "masked.parquet", MASKED)) if masker is not None else None
        overlaps = stack.enter_context(OverlapsReport(out)) if contamination is not None else None
        duplicates = _Duplicates(removal_list)
        checks: list[Check] = [duplicates, *_checks(cleaning)]
        if contamination is not None and overlaps is not None:
            checks.append(partial(_contamination, contamination, overlaps))
        for row, removal in _judged(read_rows(tables, DOCUMENTS.names), checks):
            if removal is not None:
                report.add_removed(row, removal.step, removal.reason)
                removed.write({**row, **removal._asdict()})
                continue
            text, masks = masker.mask(row["text"]) if masker is not None else (row["text"], [])
            report.add_kept(row["document_id"], text, masks)
            kept.write({**row, "text": text})
            if masked is not None:
                for mask in masks:
                    masked.write({"document_id": row["document_id"], **mask._asdict()})
    duplicates.check_end()
    overlapped = overlaps.write_page() if overlaps is not None else {}
    counts = report.write(out)
    warnings = [*warning_of_ids(report.reasons[SAME_ID]).values(), *warning_of_nothing_left(counts)]
    return counts | overlapped | ({"warning": ". ".join(warnings)} if warnings else {})


def _steps(cleaning: Cleaning, decontaminates: bool) -> list[str]:
    """The names of the steps that are on, in their order."""
    optional = {"language": cleaning.language, "quality": cleaning.quality, "repetition": cleaning.repetition}
    on = [name for name, rules in optional.items() if rules is not None]
    return ["duplicates", "length", *on, *(["contamination"] if decontaminates else [])]


def _checks(cleaning: Cleaning) -> list[Check]:
    """The steps that are on but the first and the last, in their order. Those of Gopher's rules share the documents' words, so they are one check."""
    checks: list[Check] = [partial(_length, cleaning)]
    if cleaning.language is not None:
        checks.append(partial(_language, cleaning.language))
    if cleaning.quality is not None or cleaning.repetition is not None:
        checks.append(partial(_gopher, Gopher(cleaning.quality, cleaning.repetition)))
    return checks


def _judged(rows: Iterable[Row], checks: Sequence[Check]) -> Iterator[tuple[Row, Removal | None]]:
    for batch in batched(rows, characters=_BATCH_CHARACTERS, most_rows=_BATCH_ROWS):
        found: list[Removal | None] = [None] * len(batch)
        for check in checks:
            left = [index for index, removal in enumerate(found) if removal is None]
            for index, removal in zip(left, check([batch[index] for index in left]), strict=True):
                found[index] = removal
        yield from zip(batch, found, strict=True)


class _Duplicates:
    """The removal list, read along with the documents: both are in the order of the shard's rows."""

    def __init__(self, removal_list: Path) -> None:
        self._listed = read_rows([removal_list], ["document_id", "duplicate_of", "kind", "similarity"])
        self._next = next(self._listed, None)

    def __call__(self, rows: Sequence[Row]) -> Iterator[Removal | None]:
        for row in rows:
            listed = self._next
            if listed is None or row["document_id"] != listed["document_id"]:
                yield None
            else:
                self._next = next(self._listed, None)
                yield Removal("duplicates", _duplicate_reason(listed["duplicate_of"], listed["kind"], listed["similarity"]))

    def check_end(self) -> None:
        """See that every document of the list was there.

        Raises:
            ValueError: one was not, so that the list is one of other documents.
        """
        if self._next is not None:
            raise ValueError(
                f"the list of duplicates holds '{self._next['document_id']}', where the shard's documents have no such one (any more): "
                "materialize document_signatures of the shard and duplicate_documents again"
            )


def _duplicate_reason(other: str, kind: str, similarity: float | None) -> str:
    if kind == "same_id":
        return f"{SAME_ID}: ids must be unique in a corpus"
    return f"duplicate: of '{other}', " + ("the same text" if kind == "exact" else f"similarity {similarity:.2f}")


def _length(cleaning: Cleaning, rows: Sequence[Row]) -> Iterator[Removal | None]:
    least, most = cleaning.min_characters, cleaning.max_characters
    for row in rows:
        characters = len(row["text"])
        if characters < least:
            yield Removal("length", f"too short: {characters} characters, at least {least} allowed")
        elif most is not None and characters > most:
            yield Removal("length", f"too long: {characters} characters, at most {most} allowed")
        else:
            yield None


def _language(rule: LanguageRule, rows: Sequence[Row]) -> Iterator[Removal | None]:
    for row in rows:
        code, probability = tell_language(row["text"], rule.max_characters)
        if code not in rule.keep:
            yield Removal("language", f"other language: {code} (probability {probability:.2f}), {', '.join(rule.keep)} allowed")
        elif probability < rule.min_probability:
            yield Removal(
                "language", f"doubtful language: {code} (probability {probability:.2f}), at least {rule.min_probability:g} allowed"
            )
        else:
            yield None


def _gopher(gopher: Gopher, rows: Sequence[Row]) -> Iterator[Removal | None]:
    for broken in gopher.first_broken([row["text"] for row in rows]):
        yield None if broken is None else Removal(broken.step, broken.reason)


def _contamination(index: ContaminationIndex, overlaps: OverlapsReport, rows: Sequence[Row]) -> Iterator[Removal | None]:
    for row, overlap in zip(rows, index.find([row["text"] for row in rows]), strict=True):
        if overlap is None:
            yield None
        else:
            overlaps.add(row["document_id"], overlap)
            yield Removal("contamination", f"{CONTAMINATED}: {overlap.task} {overlap.example_id}: {overlap.words}")
