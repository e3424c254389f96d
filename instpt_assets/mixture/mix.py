"""The mixture: which rows of which tokenized shards an arm trains on, how often, and in what order.

It is an index (files: `mixture.index`) and copies no token. Whole documents are sampled: a component is passed over in a random order, and a
fraction of a pass is that order's begin (`mixture.drawing`). The documents of all components are shuffled together and packed
(`mixture.packing`) into exactly as many sequences as the steps take, so all arms train on equally many. With `concatenate` one component
fills what the others leave to the last token: the document of its that crosses the end stands last and is cut there. With `best_fit` as much
is drawn as makes that many sequences; what they leave empty is padding.

A mixture that extends earlier token budgets begins with the sequences that they had. Each stretch, from one budget to the next, is packed by
itself. A component is drawn on where the stretch before stopped, to the amount that its ratio or repetition gives over the whole up to
that stretch's end: so a repetition that the first stretch reached draws nothing more, and ratios hold in every stretch.

Documents that the recipe holds out stand in no arm, nor do augmented texts that hold one (the others in such a text stand raw); their own
sequences (packed by best fit, so that only those longer than a sequence are cut) lie beside.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from instpt_assets.mixture.documents import Documents, HeldOut, hold_out
from instpt_assets.mixture.drawing import Drawing
from instpt_assets.mixture.index import HELD_OUT_BOUNDS, HELD_OUT_PIECES, PIECE_DTYPE, SOURCES
from instpt_assets.mixture.packing import best_fit
from instpt_assets.mixture.row_index import Indices
from instpt_assets.mixture.stretches import SequenceWriter, write_best_fit, write_concatenated
from instpt_assets.recipe.arms import Component
from instpt_assets.store.preview import PREVIEW

TABLE = "data-00000.parquet"


def build_mixture(
    mixture: Sequence[Component],
    indices: Indices,
    *,
    seed: int,
    token_budget: int,
    extended_from: Sequence[int] = (),
    batch_tokens: int,
    sequence_length: int,
    packing: Literal["concatenate", "best_fit"] = "concatenate",
    document_attention: bool = False,
    held_out_documents: int = 0,
    out: Path,
) -> dict[str, Any]:
    """Choose, repeat, order and pack the documents of an arm.

    Args:
        mixture: the arm's components.
        indices: the tokenized artifacts that they name: `tokenized_raw` and `<pair set>/tokenized_augmented` by shard, `tokenized_instructions`.
        seed: of all orders.
        token_budget: tokens to train on; rounded to whole steps as `Optimization.num_steps` does.
        extended_from: earlier token budgets, ascending.
        batch_tokens: tokens a step; a multiple of sequence_length.
        sequence_length: tokens a training sequence.
        packing: see `Pretraining.packing`.
        document_attention: see `Pretraining.document_attention`; it is only written down.
        held_out_documents: how many raw documents no arm trains on; see `hold_out`.
        out: the artifact's folder.

    Returns:
        Statistics: num_steps, num_tokens (the budget: trained on, or padding), num_trained_tokens, padding_tokens, cut_tokens (of documents
        drawn, not trained on), num_sequences, num_documents (drawn, repeats counted), split_documents (that do not end in the sequence in
        which they begin), num_sources, num_shards, num_held_out_documents, components (columns of `accounting.source_table` of each, by label),
        seconds.

    Raises:
        ValueError: a component holds too little, or artifacts do not fit together; the message says what can be done.
    """
    from instpt_assets.mixture.accounting import component_statistics, page, source_table

    started = monotonic()
    if batch_tokens % sequence_length:
        raise ValueError(f"batch_tokens {batch_tokens} is no multiple of sequence_length {sequence_length}")
    num_steps = [max(1, round(budget / batch_tokens)) for budget in (*extended_from, token_budget)]
    ends = [steps * batch_tokens // sequence_length for steps in num_steps]
    held_out = hold_out(indices, held_out_documents)
    documents = Documents(mixture, indices, held_out, seed=seed)
    drawing = Drawing(mixture, documents)
    drawn = drawing.nothing

    out.mkdir(parents=True, exist_ok=True)
    with SequenceWriter(out, documents) as writer:
        for stretch, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if packing == "concatenate":
                drawn = write_concatenated(drawing, drawn, end - begin, sequence_length, writer)
            else:
                label = f"{seed}/sequences/{stretch}"
                drawn = write_best_fit(drawing, drawn, end - begin, sequence_length, writer, shuffled_by=label)
    if held_out.num_documents:
        _write_held_out(held_out, documents, sequence_length, out)
    index = {
        "sequence_length": sequence_length,
        "num_sequences": ends[-1],
        "packing": packing,
        "document_attention": document_attention,
        "sources": [{"asset": asset, "partition": partition} for asset, partition in documents.named],
    }
    (out / SOURCES).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")

    budget = ends[-1] * sequence_length
    table = source_table(documents, drawing, drawn, writer, budget)
    table.write_parquet(out / TABLE, compression="zstd")
    trained = int(writer.trained_tokens.sum())
    statistics = {
        "num_steps": num_steps[-1],
        "num_tokens": budget,
        "num_trained_tokens": trained,
        "padding_tokens": budget - trained,
        "cut_tokens": int(writer.drawn_tokens.sum()) - trained,
        "num_sequences": ends[-1],
        "num_documents": int(writer.drawn_documents.sum()),
        "split_documents": writer.split_documents,
        "num_sources": len(documents.named),
        "num_shards": len({partition for asset, partition in indices if partition != "all"}),
        "num_held_out_documents": held_out.num_documents,
        "components": component_statistics(table),
    }
    preview = out / PREVIEW  # among the logs: its words are no content
    preview.parent.mkdir(exist_ok=True)
    preview.write_text(page(statistics, table, held_out, packing=packing, sequence_length=sequence_length), encoding="utf-8")
    return {**statistics, "seconds": monotonic() - started}


def _write_held_out(held_out: HeldOut, documents: Documents, sequence_length: int, out: Path) -> None:
    packed = best_fit(held_out.num_tokens, sequence_length)
    numbers = {source: number for number, source in enumerate(documents.named)}
    sources = np.array([numbers[source] for source in held_out.sources])
    pieces = np.empty(len(packed.document), dtype=PIECE_DTYPE)
    pieces["source"] = sources[held_out.source[packed.document]]
    pieces["row"] = held_out.row[packed.document]
    pieces["begin"], pieces["count"] = packed.begin, packed.count
    np.save(out / HELD_OUT_PIECES, pieces)
    np.save(out / HELD_OUT_BOUNDS, packed.bounds)
