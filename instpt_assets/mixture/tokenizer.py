"""The tokenizer as a Hugging Face folder: train one, copy a base model's, load one to encode plain text.

Text is data, never control: `load_encoder` encodes what looks like a special token (`</s>` in a passage) as the ordinary
characters it is made of, and adds no token of its own. Callers place BOS, EOS and markers by id.
"""

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from instpt_assets.recipe.training import TokenizerRecipe

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Batch = TypeVar("Batch")
Result = TypeVar("Result")

FOLDER = "tokenizer"
"""Name of the Hugging Face folder inside the artifact."""

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
"""What a tokenizer consists of; only the first must be there."""
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
"""Padding, BOS and EOS of a tokenizer trained here: ids 0, 1, 2."""
BATCH_CHARACTERS = 1 << 20
"""Texts are encoded so many characters at a time."""
_MOST_THREADS = 8  # each batch is encoded on all cores; several at a time leave none idle at its end


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that takes text as plain text, and the ids that callers place themselves."""

    tokenizer: "Tokenizer"
    eos_id: int
    """Ends every row."""
    vocab_size: int
    """Largest id + 1, added tokens included."""

    def encode(self, text: str) -> list[int]:
        """Token ids of the text, without any special token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encoded(
        self,
        batches: Iterable[Batch],
        texts: Callable[[Batch], list[str]],
        then: Callable[["list[Encoding]"], Result],
        *,
        offsets: bool = False,
    ) -> Iterator[tuple[Batch, Result]]:
        """Encode batches in order, a few of them ahead: the next ones are read and the last one is written meanwhile.

        While a text is encoded the library takes about 100 bytes of memory for each of its bytes, so that memory depends on the longest texts.

        Args:
            batches: of about `BATCH_CHARACTERS` characters each.
            texts: a batch's texts.
            then: what is made of their encodings, in a thread.
            offsets: whether the encodings know the characters that a token stands for (slower).
        """
        encode = self.tokenizer.encode_batch if offsets else self.tokenizer.encode_batch_fast
        waiting: deque[tuple[Batch, Future[Result]]] = deque()
        num_threads = min(_MOST_THREADS, 1 + len(os.sched_getaffinity(0)))
        with ThreadPoolExecutor(num_threads) as threads:
            for batch in batches:
                waiting.append((batch, threads.submit(lambda each: then(encode(each, add_special_tokens=False)), texts(batch))))
                if len(waiting) > num_threads:
                    first, result = waiting.popleft()
                    yield first, result.result()
            for first, result in waiting:
                yield first, result.result()


def make_tokenizer(recipe: TokenizerRecipe, clean_tables: Sequence[Path], *, base_model: Path | None = None, out: Path) -> dict[str, Any]:
    """The recipe's tokenizer in `out/tokenizer/`: trained on the pinned shards, or the base model's.

    Args:
        recipe: which.
        clean_tables: tables of the pinned shards of `clean_corpus`; unused if the recipe names a model.
        base_model: folder of the model that the recipe names.
        out: the artifact's folder.

    Returns:
        Statistics of `train_tokenizer`, with bytes_per_token over the first sample_bytes of the shards, or of `copy_tokenizer`.
    """
    from instpt_assets.corpus.tables import read_rows
    from instpt_assets.mixture.token_preview import preview_tokenizer

    if recipe.model is not None:
        assert base_model is not None, "the recipe takes a base model's tokenizer"
        statistics = copy_tokenizer(base_model, out=out)
        preview_tokenizer(out, "")
        return statistics

    assert recipe.vocab_size is not None, "a recipe without model has vocab_size"
    # Documents are separated by EOS alone, so that is also what stands in front of a text: a BOS would be a token that no model has seen.
    statistics = train_tokenizer((row["text"] for row in read_rows(clean_tables, ["text"])), recipe.vocab_size, out=out, bos_is_eos=True)
    sample = _first_texts((row["text"] for row in read_rows(clean_tables, ["text"])), BATCH_CHARACTERS)
    num_tokens = sum(len(encoding) for encoding in load_encoder(out / FOLDER).tokenizer.encode_batch_fast(sample, add_special_tokens=False))
    num_bytes = sum(len(text.encode()) for text in sample)
    preview_tokenizer(out, sample[0])
    return {**statistics, "sample_bytes": num_bytes, "bytes_per_token": num_bytes / max(1, num_tokens)}


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    out: Path,
    bos_is_eos: bool = False,
) -> dict[str, Any]:
    """Train a byte-level BPE (no prefix space, GPT-2's pre-tokenization) and write `out/tokenizer/`.

    The same texts in the same or another order give the same bytes, however many threads take part.

    Args:
        texts: training texts, consumed once.
        vocab_size: tokens in all, the 256 bytes and `SPECIAL_TOKENS` included.
        out: the artifact's folder.
        bos_is_eos: name the EOS token as BOS too (GPT-2's convention).

    Returns:
        Statistics: num_texts, num_bytes (UTF-8), vocab_size (smaller than asked for if the texts hold too few merges), seconds.

    Raises:
        ValueError: there is no text, or `vocab_size` cannot hold the special tokens and the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(alphabet) + len(SPECIAL_TOKENS):
        raise ValueError(f"vocab_size {vocab_size} is too small for {len(alphabet)} bytes and {len(SPECIAL_TOKENS)} special tokens")
    started = monotonic()
    counts = {"num_texts": 0, "num_bytes": 0}

    def counted() -> Iterable[str]:
        for text in texts:
            counts["num_texts"] += 1
            counts["num_bytes"] += len(text.encode())
            yield text

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        max_token_length=32,
        show_progress=False,
    )
    tokenizer.train_from_iterator(counted(), trainer)
    if not counts["num_texts"]:
        raise ValueError(
            "there is no text to train the tokenizer on: were all records of the pinned shards rejected (text_field), or removed in cleaning?"
        )
    folder = out / FOLDER
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, bos, eos = SPECIAL_TOKENS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": eos if bos_is_eos else bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return {**counts, "vocab_size": tokenizer.get_vocab_size(), "seconds": monotonic() - started}


def add_markers(folder: Path, markers: Sequence[str]) -> dict[str, int]:
    """Add special tokens behind the vocabulary of a tokenizer folder, in place.

    Args:
        folder: the Hugging Face folder.
        markers: texts of the new tokens; one that is a token already keeps its id.

    Returns:
        The id of each marker.
    """
    from tokenizers import AddedToken, Tokenizer

    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([AddedToken(marker, normalized=False, special=True) for marker in markers])
    tokenizer.save(str(path))
    vocabulary = tokenizer.get_vocab()
    return {marker: vocabulary[marker] for marker in markers}


def copy_tokenizer(model: Path, *, out: Path) -> dict[str, Any]:
    """Write a base model's tokenizer to `out/tokenizer/`, for continual pre-training.

    Args:
        model: its Hugging Face folder.
        out: the artifact's folder.

    Returns:
        Statistics: vocab_size, files.

    Raises:
        ValueError: the model has no tokenizer.json, or its configuration names no EOS token.
    """
    if not (model / FILES[0]).is_file():
        raise ValueError(f"the model '{model}' has no tokenizer.json: convert its tokenizer to the fast format first")
    folder = out / FOLDER
    folder.mkdir(parents=True)
    for name in FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    return {"vocab_size": load_encoder(folder).vocab_size, "files": sorted(path.name for path in folder.iterdir())}


def load_encoder(folder: Path) -> Encoder:
    """Load a tokenizer folder for encoding plain text; what looks like a special token stays text.

    Raises:
        ValueError: the folder names no EOS token, or one that its vocabulary lacks.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    eos = _special_token(folder, "eos_token")
    eos_id = None if eos is None else tokenizer.token_to_id(eos)
    if eos_id is None:
        raise ValueError(f"{folder} names no EOS token that its vocabulary holds (eos_token: {eos!r}); set it in tokenizer_config.json")
    return Encoder(tokenizer=tokenizer, eos_id=eos_id, vocab_size=max(tokenizer.get_vocab().values()) + 1)


def _first_texts(texts: Iterable[str], characters: int) -> list[str]:
    """The first texts, until they have so many characters."""
    first: list[str] = []
    for text in texts:
        first.append(text)
        characters -= len(text)
        if characters <= 0:
            break
    return first


def _special_token(folder: Path, name: str) -> str | None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        token = json.loads(path.read_text(encoding="utf-8")).get(name) if path.is_file() else None
        if token is not None:
            return str(token["content"] if isinstance(token, dict) else token)
    return None
