"""Held-out bits per byte: how well a model predicts text it never saw, comparable between tokenizers; lower is better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TASK, METRIC = "held_out_documentation", "bits_per_byte"
_MAX_LOGITS = 1 << 27  # logits of one forward pass (512 MiB as float32)


@dataclass(frozen=True)
class DocumentBits:
    """One document's code length."""

    id: str
    bits: float
    """Negative log2-likelihood of its tokens."""
    num_bytes: int
    """Its length in UTF-8."""


def measure_bits(model: Any, tokenizer: Any, documents: Mapping[str, str], *, max_length: int, batch_size: int) -> list[DocumentBits]:
    """Code length of each document under a causal model.

    The tokens (no special ones among them) follow `<s>`, or `</s>` where the tokenizer has no `<s>`. Long documents are cut to windows
    of `max_length` tokens; a window's first token is conditioned on the last one of the window before, and every token counts once.

    Args:
        model: a transformers causal LM.
        tokenizer: its tokenizer.
        documents: texts by id; empty ones are left out.
        max_length: positions a forward pass.
        batch_size: windows a forward pass, fewer where the vocabulary is large.

    Returns:
        One entry a document, in the order given.
    """
    import torch
    from torch.nn.functional import cross_entropy

    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    texts = {name: text for name, text in documents.items() if text}
    windows: list[tuple[int, list[int]]] = []  # document number; inputs, with the last target behind them
    for number, text in enumerate(texts.values()):
        ids = [start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        windows += [(number, ids[i : i + max_length + 1]) for i in range(0, len(ids) - 1, max_length)]
    windows.sort(key=lambda window: -len(window[1]))
    nats = [0.0] * len(texts)
    vocabulary = int(model.config.vocab_size)
    position = 0
    with torch.inference_mode():
        while position < len(windows):
            length = len(windows[position][1]) - 1
            batch = windows[position : position + max(1, min(batch_size, _MAX_LOGITS // (length * vocabulary)))]
            position += len(batch)
            # Padding stands behind the text: a causal model's other positions never see it.
            tokens = torch.full((len(batch), length + 1), -100)
            for row, (_, ids) in enumerate(batch):
                tokens[row, : len(ids)] = torch.tensor(ids)
            tokens = tokens.to(model.device)
            logits = model(input_ids=tokens[:, :-1].clamp(min=0), use_cache=False).logits.float()
            losses = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=-100, reduction="none")
            for (number, _), loss in zip(batch, losses.view(len(batch), length).double().sum(dim=1).tolist(), strict=True):
                nats[number] += loss
    return [DocumentBits(name, nat / math.log(2), len(text.encode())) for (name, text), nat in zip(texts.items(), nats, strict=True)]
