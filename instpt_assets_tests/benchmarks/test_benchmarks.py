"""The benchmarks at their goals, with room for a busy machine; each prints what it measured."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Benchmark = Callable[..., Any]


@pytest.fixture
def benchmark(tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> Benchmark:
    """Runs a benchmark in a process of its own and gives its JSON."""

    def run(name: str, *arguments: str) -> Any:
        out = tmp_path / "out.json"
        command = [sys.executable, "-m", f"instpt_assets_tests.benchmarks.{name}", *arguments, "--out", str(out)]
        environment = os.environ | {"INSTPT_SHARED_DATA": str(shared_data), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path)
        with capsys.disabled():
            print(f"\n{name}\n{done.stdout}")
        assert done.returncode == 0
        return json.loads(out.read_text())

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "cache", "least"), [("50M", "long", 1.15), ("5M", "long", 0.95), ("5M", "tenth", 0.95), ("5M", "everything", 0.85)]
)
def test_chains_compute_each_prompt_token_once_and_are_no_slower_than_rounds(
    shape: str, cache: str, least: float, benchmark: Benchmark
) -> None:
    (result,) = benchmark("chains_against_rounds", "--shapes", shape, "--caches", cache, "--repeats", "1")
    assert result["num_passages"] >= 600
    assert result["chains: prompt tokens / floor"] <= 1.1
    assert result["chains: passages a second / rounds', by CPU time"][1] >= least


@pytest.mark.slow
def test_one_passage_a_chain_is_as_fast_as_one_call_of_generate(benchmark: Benchmark) -> None:
    result = benchmark("one_shot", "--parts", "engine", "--repeats", "3")["engine"]
    assert result["chains: passages a second / rounds', by CPU time"][1] >= 0.93
    assert result["chains: prompt tokens / rounds'"] <= 1.02


@pytest.mark.slow
def test_the_scheduler_takes_little_time_and_its_memory_stays_flat(benchmark: Benchmark) -> None:
    result = benchmark("one_shot", "--parts", "scheduler", "memory")
    assert all(row["scheduler_microseconds"] < 300 for row in result["scheduler"])
    few, many = result["memory"]
    assert (few["num_passages"], many["num_passages"]) == (10_000, 100_000)
    assert many["resident_peak_mib"] < few["resident_peak_mib"] + 100


@pytest.mark.slow
def test_chains_of_three_gain_40_percent_on_a_simulated_gpu(benchmark: Benchmark) -> None:
    rows = benchmark("simulated_7b", "--gpus", "a100-80gb", "--shots", "3")["rows"]
    chains = next(row for row in rows if row["way"] == "chains")
    assert chains["ratio"] >= 1.4
    assert chains["prompt_tokens_of_floor"] <= 1.1


@pytest.mark.slow
def test_a_gigabyte_of_text_is_ingested_in_the_memory_of_a_tenth_of_it(benchmark: Benchmark) -> None:
    for cut in ([], ["--documents-per-shard", "10000"]):
        few, many = benchmark("ingest", "--formats", "jsonl.zst", *cut)
        assert (few["megabytes"], many["megabytes"]) == (100, 1000)
        assert many["resident_peak_mib"] <= 1.2 * few["resident_peak_mib"]
        assert many["documents"] > 9 * few["documents"]
        assert many["megacharacters_a_second"] > 15  # on a quiet machine above 60


@pytest.mark.slow
def test_raw_text_becomes_filtered_documents_at_megabytes_a_second(benchmark: Benchmark) -> None:
    result = benchmark("corpus_against_datatrove", "--megabytes", "10")
    ours = result["ours"]
    assert 0.9 * ours["documents"]["read"] < ours["documents"]["kept"] < ours["documents"]["read"]
    assert result["megabytes"] / sum(ours["seconds"].values()) > 3  # on a quiet machine above 12


@pytest.mark.slow
def test_tokenizing_is_as_fast_as_the_library_and_its_memory_stays_flat(benchmark: Benchmark) -> None:
    result = benchmark("tokenizing")
    rates = result["rates"]
    assert len(set(rates["num_tokens"].values())) == 1
    assert rates["ours / other"]["encode_batch"] >= 0.9  # on a quiet machine 1.2
    assert rates["ours / other"]["encode_batch_fast"] >= 0.8  # on a quiet machine 0.95
    few, many = result["memory"]
    assert many["num_tokens"] > 9 * few["num_tokens"]
    assert many["resident_peak_mib"] <= 1.25 * few["resident_peak_mib"]


@pytest.mark.slow
def test_planted_near_duplicates_are_found_by_how_alike_they_are(benchmark: Benchmark) -> None:
    rows = {(row["texts"], row["words"], row["threshold"], row["edited"]): row for row in benchmark("planted_duplicates")}
    for kind in ("abstracts", "papers"):
        for recipe, edited in (((5, 0.8), 0.01), ((5, 0.4), 0.05), ((2, 0.4), 0.1), ((2, 0.4), 0.2)):
            row = rows[kind, *recipe, edited]
            assert row["planted removed"] >= 0.97 * row["planted"]
            assert row["removed of nearly the threshold"] >= 0.99 * row["removed"]
        assert rows[kind, 5, 0.8, 0.2]["removed"] == 0


@pytest.mark.slow
def test_augmentation_takes_no_more_memory_for_more_passages(benchmark: Benchmark) -> None:
    rows = benchmark("augmentation", "--passages", "30000", "--repeats", "1")
    assert [(row["index"], row["num_passages"] >= 30_000) for row in rows] == [(False, False), (True, False), (False, True), (True, True)]
    for few, many in zip(rows[:2], rows[2:], strict=True):
        assert many["resident_peak_mib"] < few["resident_peak_mib"] + 80
        assert many["num_pairs"] + sum(many["dropped_pairs"].values()) == 5 * many["num_passages"]
    assert all(row["passages_per_second"] > 4000 for row in rows)  # the goal, on a quiet machine, is 15,000


@pytest.mark.slow
def test_every_planted_evaluation_example_is_found_and_few_others_are(benchmark: Benchmark) -> None:
    figures = benchmark("planted_examples", "--planted", "100")
    for by_length in figures.values():
        for variant in ("exact", "exact, as an exam prints it", "case, punctuation, white space"):
            found, planted = by_length["found"][variant]["all"]
            assert found == planted > 1000, variant
        assert by_length["megabytes_per_second"] > 8  # the goal, on a quiet machine, is 20
    found, planted = figures["13"]["found"]["5 % of its words edited"]["all"]
    assert found >= 0.8 * planted
    assert sum(found for found, _ in figures["13"]["unplanted"].values()) <= 20


@pytest.mark.slow
def test_best_fit_cuts_no_document_that_fits_and_packs_millions_in_seconds(benchmark: Benchmark) -> None:
    result = benchmark("packing", "--shards", "2")
    for row in result["speed"]:
        assert row["documents"] == 10_000_000
        assert row["best_fit"] < 30 and row["counted_sequences"] < 2  # on a quiet machine 4 and 0.1
    for kind in result["texts"].values():
        for row in kind["lengths"].values():
            assert row["best_fit"]["cut"] == row["longer"] and row["best_fit"]["cut though they fit"] == row["best_fit"]["left off"] == 0
            assert row["concatenate"]["cut"] > row["best_fit"]["cut"]
    abstracts = result["texts"]["abstracts"]["lengths"]["2048"]
    assert abstracts["concatenate"]["cut"] > 0.15 and abstracts["best_fit"]["padding"] < 0.03


@pytest.mark.slow
def test_the_training_loop_is_as_fast_as_a_bare_one_and_never_waits_for_data(benchmark: Benchmark) -> None:
    result = benchmark("training", "--shapes", "demo", "--steps", "4", "--repeats", "3")
    for row in result["rates"]:
        assert row["ours / other"]["bare"]["processor"] >= 0.95
        assert row["ours / other"]["bare, our loss"]["processor"] >= 0.9  # what the loop alone costs
        assert row["data_wait_share"] <= 0.01
    assert result["waiting"]["data_wait_share"]["by a thread"] <= 0.01
    assert result["processes"]["largest difference of the losses"] <= 1e-4


@pytest.mark.slow
def test_a_mixture_of_a_thousand_shards_takes_seconds_and_one_more_shard_reads_that_one(benchmark: Benchmark) -> None:
    result = benchmark("mixture")
    for row in result["shards"]:
        assert row["shards"] == 1000
        assert row["first"]["seconds"] < 25  # the goal, on a quiet machine, is 10
        assert row["first"]["artifacts_read"] == 2 * 1000 + 1
        assert row["one_more_shard"]["artifacts_read"] == 2
        assert row["largest_ratio_error_of_budget"] < 0.001
    assert max(row["bytes_a_document"] for row in result["memory"] if row["documents"] == 10_000_000) < 70
