"""What a person sees of a tokenizer and of tokenized rows, as Markdown; it lies among the logs and is no content."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instpt_assets.mixture.tokenizer import FOLDER, Encoder, load_encoder
from instpt_assets.store.preview import PREVIEW, markdown_cell, markdown_table

if TYPE_CHECKING:
    from instpt_assets.mixture.arrays import TokenizedRows

_SHOWN_TOKENS = 24
_CUT_TOKENS = 16  # as many columns fit into a dialog of the UI
_SHOWN_ROWS = 5


def preview_tokenizer(folder: Path, sample: str) -> None:
    """Write a tokenizer artifact's preview: special tokens, the longest tokens, and how a sample of text is cut.

    Args:
        folder: the artifact's folder.
        sample: some text, the first that is at hand.
    """
    encoder = load_encoder(folder / FOLDER)
    tokenizer = encoder.tokenizer
    special = {number: token.content for number, token in sorted(tokenizer.get_added_tokens_decoder().items())}
    words = [tokenizer.decode([number]) for number in sorted(set(tokenizer.get_vocab().values()) - set(special))]
    longest = sorted({word for word in words if word.strip().isalpha()}, key=lambda word: (-len(word), word))[:_SHOWN_TOKENS]
    lines = [
        f"**{encoder.vocab_size:,} tokens**. Rows end in EOS, {_token(encoder, encoder.eos_id)}; a text that looks like it stays text.",
        "",
        "Special tokens: "
        + (", ".join(f"{number} {markdown_cell(text)}" for number, text in list(special.items())[:_SHOWN_TOKENS]) or "none"),
        "",
        "Longest words: " + ", ".join(markdown_cell(f'"{word}"') for word in longest),
    ]
    if sample:
        lines += ["", "The first text begins:", "", *_cut(encoder, encoder.encode(sample[: 20 * _SHOWN_TOKENS]))]
    _write(folder, lines)


def preview_rows(folder: Path, encoder: Encoder, rows: "TokenizedRows") -> None:
    """Write the preview of tokenized rows: how long they are, the longest, and the first one's first tokens.

    Args:
        folder: the artifact's folder.
        encoder: of the tokenizer that made them.
        rows: the artifact's rows.
    """
    tokens = rows.num_tokens()
    if not len(tokens):
        _write(folder, ["no rows"])
        return
    low, median, high = (int(value) for value in np.quantile(tokens, [0.1, 0.5, 0.9]))
    longest = np.argsort(-tokens, kind="stable")[:_SHOWN_ROWS]
    names = rows.column("row_id").take(longest).to_pylist()
    num_bytes = rows.column("num_bytes").take(longest).to_pylist()
    shown = zip(names, tokens[longest].tolist(), num_bytes, strict=True)
    _write(
        folder,
        [
            f"**{tokens.sum():,} tokens** in {len(tokens):,} rows: {tokens.sum() - len(tokens):,} of texts, and an EOS a row. "
            f"A row has {median:,} tokens in the median; one in ten has {low:,} or fewer, one in ten {high:,} or more.",
            "",
            "The longest rows:",
            "",
            *markdown_table(
                ("row", "tokens", "bytes", "bytes a token"),
                ((markdown_cell(name), f"{count:,}", f"{size:,}", f"{size / max(1, count - 1):.2f}") for name, count, size in shown),
            ),
            "",
            f"The first row, {markdown_cell(rows.column('row_id')[0].as_py())}, begins:",
            "",
            *_cut(encoder, rows.row(0).tolist()),
        ],
    )


def row_statistics(rows: "TokenizedRows") -> dict[str, Any]:
    """Of tokenized rows: num_text_tokens (without EOS), median_row_tokens, longest_row_tokens; with the EOS of each row the first is num_tokens."""
    tokens = rows.num_tokens()
    return {
        "num_text_tokens": int(tokens.sum()) - len(tokens),
        "median_row_tokens": int(np.median(tokens)) if len(tokens) else 0,
        "longest_row_tokens": int(tokens.max(initial=0)),
    }


def _cut(encoder: Encoder, ids: Sequence[int]) -> list[str]:
    shown = ids[:_CUT_TOKENS]
    texts = [_token(encoder, number) for number in shown]
    return markdown_table(("", *map(str, range(len(shown)))), [["**token**", *texts], ["**id**", *map(str, shown)]])


def _token(encoder: Encoder, number: int) -> str:
    """A token's text in quotes, so that blanks are seen, and no line breaks at them."""
    return markdown_cell(f'"{encoder.tokenizer.decode([number], skip_special_tokens=False)}"').replace(" ", "\N{NO-BREAK SPACE}")


def _write(folder: Path, lines: Sequence[str]) -> None:
    path = folder / PREVIEW
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
