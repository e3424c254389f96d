"""Instruction sequences: whole examples, loss on responses and their EOS only, repeats, padding."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from instpt_assets.mixture.arrays import RowWriter
from instpt_assets.mixture.instruction_sequences import InstructionSequences
from instpt_assets.mixture.sequences import NO_LOSS

EOS, LENGTH = 0, 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pair rows: row i is its number i + 1, repeated; the last quarter of it is the response; row 9 is too long."""
    sizes = [4, 8, 12, 4, 8, 12, 16, 20, 4, 40]
    components = ["tuning_pairs"] * 6 + ["general"] * 4
    with RowWriter(tmp_path, vocab_size=100, eos_id=EOS, columns=[pa.field("component", pa.string())]) as writer:
        flat, num_tokens = writer.flatten([*([row + 1] * size for row, size in enumerate(sizes)), [99] * 4])
        values = {
            "row_id": [*(f"row/{row}" for row in range(len(sizes))), "laid out"],
            "document_ids": [[]] * 11,
            "num_bytes": [*sizes, 4],
            "component": [*components, "tuning"],
        }
        writer.append(flat, num_tokens, values)
    np.save(tmp_path / "response_spans.npy", np.array([(size - size // 4, size) for size in sizes] + [(0, 0)]))
    return tmp_path


def sequences(
    folder: Path, components: tuple[str, ...] = ("tuning_pairs", "general"), seed: int = 0, num_sequences: int = 12
) -> InstructionSequences:
    return InstructionSequences(folder, components, num_sequences=num_sequences, seed=seed, sequence_length=LENGTH)


def test_examples_stand_whole_and_only_responses_with_their_eos_have_labels(folder: Path) -> None:
    source = sequences(folder)
    seen: Counter[int] = Counter()
    for index in range(len(source)):
        ids, labels, _ = source.sequence(index)
        assert ids.shape == labels.shape == (LENGTH,)
        assert ids.dtype == labels.dtype == np.int64
        place = 0
        while place < LENGTH and ids[place] != EOS:
            value = int(ids[place])
            size = {1: 4, 2: 8, 3: 12, 4: 4, 5: 8, 6: 12, 7: 16, 8: 20, 9: 4}[value]
            quarter = size // 4
            assert ids[place : place + size + 1].tolist() == [value] * size + [EOS]
            assert labels[place : place + size + 1].tolist() == [NO_LOSS] * (size - quarter) + [value] * quarter + [EOS]
            seen[value] += 1
            place += size + 1
        assert (ids[place:] == EOS).all()
        assert (labels[place:] == NO_LOSS).all()
    assert seen.total() == source.statistics["num_packed"]
    assert (source.statistics["num_too_long"], source.statistics["too_long"]) == (1, ["row/9"])
    assert source.statistics["num_examples"] == len(seen) == 9
    assert source.statistics["repetition"] == pytest.approx(seen.total() / 9)


def test_statistics_count_labels_and_padding(folder: Path) -> None:
    source = sequences(folder)
    drawn = [source.sequence(index) for index in range(len(source))]
    assert source.statistics["num_response_tokens"] == sum(int((labels != NO_LOSS).sum()) for _, labels, _ in drawn)
    padding = sum(LENGTH - int((ids != EOS).sum()) for ids, _, _ in drawn) - source.statistics["num_packed"]
    assert source.statistics["padding_fraction"] == pytest.approx(padding / (len(source) * LENGTH))


def test_no_example_repeats_before_all_were_seen(folder: Path) -> None:
    source = sequences(folder, num_sequences=20)
    first = [int(value) for index in range(20) for value in dict.fromkeys(source.sequence(index)[0].tolist()) if value != EOS]
    assert sorted(first[:9]) == list(range(1, 10))
    assert sorted(first[9:18]) == list(range(1, 10))
    assert first[:9] != first[9:18]


def test_a_pass_takes_as_few_sequences_as_best_fit_makes(folder: Path) -> None:
    """Examples of 5, 9, 13, 5, 9, 13, 17, 21 and 5 tokens, EOS included: 97, so four sequences of 32."""
    source = sequences(folder, num_sequences=8)
    for begin in (0, 4):
        ids = np.concatenate([source.sequence(begin + index).ids for index in range(4)])
        assert set(ids.tolist()) == {EOS, *range(1, 10)}
    assert source.statistics["padding_fraction"] == pytest.approx(1 - 97 / 128)
    assert source.statistics["repetition"] == 2


def test_starts_are_where_examples_and_padding_begin(folder: Path) -> None:
    source = sequences(folder)
    for index in range(len(source)):
        ids, _, starts = source.sequence(index)
        begins = [0, *(place + 1 for place in range(LENGTH - 1) if ids[place] == EOS and ids[place - 1] != EOS)]
        assert starts.tolist() == begins
        assert source.describe(index).split("; ") == [f"row/{ids[begin] - 1}" for begin in begins if ids[begin] != EOS]


def test_the_seed_decides_the_order(folder: Path) -> None:
    def stream(seed: int) -> list[int]:
        source = sequences(folder, seed=seed)
        return [int(value) for index in range(len(source)) for value in source.sequence(index)[0]]

    assert stream(0) == stream(0)
    assert stream(0) != stream(1)


def test_components_are_chosen_by_name(folder: Path) -> None:
    source = sequences(folder, components=("general",))
    values = {int(value) for index in range(len(source)) for value in source.sequence(index)[0]}
    assert values == {EOS, 7, 8, 9}


def test_components_without_responses_and_sequences_too_short_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no single response"):
        sequences(folder, components=("tuning",))
    with pytest.raises(ValueError, match="no example of general fits into 3 tokens"):
        InstructionSequences(folder, ("general",), num_sequences=1, seed=0, sequence_length=3)
