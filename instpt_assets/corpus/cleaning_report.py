"""What cleaning a shard did: counts that add up, and a page with examples for people."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instpt_assets.corpus.masking import Mask, Masker
from instpt_assets.store.preview import markdown_cell, markdown_table, preview_table

PAGE = "cleaning.md"

_FIELDS = {
    "duplicates": "source, id_field and text_field of its corpus, and deduplication",
    "length": "text_field of its corpus, cleaning.min_characters and cleaning.max_characters",
    "language": "cleaning.language",
    "quality": "cleaning.quality",
    "repetition": "cleaning.repetition",
    "contamination": "decontamination",
}
"""Where a person looks in the recipe when a step removes too much."""

_REMOVED_SHOWN = 3  # of each step
_MASKS_SHOWN = 3  # of each kind
_AROUND = 40  # characters shown before and behind a mask


class CleaningReport:
    """Counts documents as they are judged; keeps a few for people.

    Args:
        steps: the steps that are on, in their order.
        masker: where masking is on; it masks the page too.

    Attributes:
        reasons: removed documents by what stands before the first colon of their reasons.
    """

    def __init__(self, steps: Sequence[str], masker: Masker | None) -> None:
        self.reasons: Counter[str] = Counter()
        self._steps, self._masker = steps, masker
        self._removed: Counter[str] = Counter()
        self._removed_characters: Counter[str] = Counter()
        self._documents = self._characters = self._masked_documents = 0
        self._masks: Counter[str] = Counter(dict.fromkeys(masker.kinds if masker is not None else (), 0))
        self._examples: defaultdict[str, list[tuple[str, str, str]]] = defaultdict(list)
        self._mask_examples: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)

    def add_removed(self, row: Mapping[str, Any], step: str, reason: str) -> None:
        """Count a removed document."""
        self._removed[step] += 1
        self._removed_characters[step] += len(row["text"])
        self.reasons[reason.split(":")[0]] += 1
        if len(self._examples[step]) < _REMOVED_SHOWN:
            text = row["text"][:1000]
            self._examples[step].append((row["document_id"], reason, self._masker.mask(text)[0] if self._masker is not None else text))

    def add_kept(self, document_id: str, text: str, masks: Sequence[Mask]) -> None:
        """Count a document that stays, masked."""
        self._documents += 1
        self._characters += len(text)
        self._masked_documents += bool(masks)
        moved = 0
        for kind, start, length in masks:
            self._masks[kind] += 1
            assert self._masker is not None
            end = start + moved + len(self._masker.kinds[kind])
            if len(self._mask_examples[kind]) < _MASKS_SHOWN:
                self._mask_examples[kind].append((document_id, text[max(0, start + moved - _AROUND) : end + _AROUND]))
            moved = end - start - length

    def write(self, out: Path) -> dict[str, Any]:
        """Write the page.

        Returns:
            The counts.
        """
        num_removed = self._removed.total()
        steps = self._counts()
        (out / PAGE).write_text(
            "\n".join([*self._page(steps), "**First documents that stay**", "", *_tables(out)]) + "\n", encoding="utf-8"
        )
        masks = {"num_masks": dict(self._masks), "num_masked_documents": self._masked_documents} if self._masker is not None else {}
        return {
            "num_read": self._documents + num_removed,
            "num_documents": self._documents,
            "num_removed": num_removed,
            "num_characters": self._characters,
            "removed_by_reason": dict(sorted(self.reasons.items())),
            "steps": steps,
            **masks,
        }

    def _counts(self) -> list[dict[str, Any]]:
        counts, left = list[dict[str, Any]](), self._documents + self._removed.total()
        for step in self._steps:
            removed = self._removed[step]
            characters = self._removed_characters[step]
            counts.append(
                {"step": step, "num_in": left, "num_removed": removed, "num_removed_characters": characters, "num_out": left - removed}
            )
            left -= removed
        assert left == self._documents, "every document is removed by one step or stays"
        return counts

    def _page(self, steps: Sequence[Mapping[str, Any]]) -> list[str]:
        characters = max(self._characters + self._removed_characters.total(), 1)
        counts = [
            (
                count["step"],
                f"{count['num_in']:,}",
                f"{count['num_removed']:,}",
                f"{count['num_removed'] / max(count['num_in'], 1):.2%}",
                f"{count['num_removed_characters'] / characters:.2%}",
                f"{count['num_out']:,}",
            )
            for count in steps
        ]
        lines = [*markdown_table(["step", "documents in", "removed", "of those in", "of all characters", "out"], counts), ""]
        if self.reasons:
            reasons = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
            shown = [(step, *map(markdown_cell, example)) for step in self._steps for example in self._examples[step]]
            lines += ["**Reasons**", "", *markdown_table(["reason", "documents"], ((markdown_cell(r), f"{n:,}") for r, n in reasons)), ""]
            lines += ["**Removed**, the first of each step", "", *markdown_table(["step", "document", "reason", "text"], shown), ""]
        if self._masker is not None:
            masks = [(kind, f"{self._masks[kind]:,}", markdown_cell(placeholder)) for kind, placeholder in self._masker.kinds.items()]
            lines += [*markdown_table(["masked", "places", "placeholder"], masks), ""]
            lines += [f"in {self._masked_documents:,} of {self._documents:,} documents that stay", ""]
        if self._mask_examples:
            shown = [(kind, *map(markdown_cell, example)) for kind, examples in self._mask_examples.items() for example in examples]
            lines += ["**Masked**, the first of each kind", "", *markdown_table(["kind", "document", "text around it"], shown), ""]
        return lines


def warning_of_nothing_left(counts: Mapping[str, Any]) -> list[str]:
    """Where every document was removed, what removed most of them and what to look at; empty where some stay, or none were there.

    Args:
        counts: as `CleaningReport.write` returns them.
    """
    if counts["num_documents"] or not counts["num_removed"]:
        return []
    most = max(counts["steps"], key=lambda step: step["num_removed"])
    return [
        f"Nothing is left: all {counts['num_read']} documents were removed, {most['num_removed']} of them by the step '{most['step']}'; "
        f"removed.parquet says why, and in the recipe look at {_FIELDS[most['step']]}"
    ]


def _tables(out: Path) -> list[str]:
    return [preview_table(path) for path in sorted(out.glob("data-*.parquet"))[:1]]
