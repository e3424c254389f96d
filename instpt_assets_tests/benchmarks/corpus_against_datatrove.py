"""Raw text to filtered documents and their near-duplicates, ours against datatrove's: the same files, one core each, MB of text a second.

Both read JSON Lines, judge every document by Gopher's quality and repetition rules, compute MinHash signatures of as many permutations of
as long shingles, and find duplicates. Ours is the stages as the graph runs them: each reads and writes tables, where datatrove hands
documents on in memory, and reading normalises and accounts for every record.

datatrove is no dependency: `--datatrove PYTHON` names an interpreter that has it (0.10, with spaCy). It splits words by spaCy's rules for
English; ours stand between white space. A second column gives datatrove `str.split`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from instpt_assets.corpus.cleaning import clean
from instpt_assets.corpus.duplicates import find_duplicates
from instpt_assets.corpus.ingest import ingest
from instpt_assets.corpus.shards import list_shards
from instpt_assets.corpus.signatures import write_signatures
from instpt_assets.recipe.cleaning import Cleaning, QualityRules, RepetitionRules
from instpt_assets.recipe.corpora import Corpus
from instpt_assets.recipe.deduplication import Deduplication
from instpt_assets_tests.benchmarks import texts

FILES = 4
WARM_UP_MEGABYTES = 0.2
STAGES = ("read", "quality", "repetition", "signatures", "duplicates")
Stage = Callable[[str, Path], object]


def ours(folder: Path) -> dict[str, Any]:
    """CPU seconds of our stages over the files of a folder."""
    corpus, rules = Corpus(source=str(folder), id_field="id"), Deduplication()
    shards = {shard.key: shard for shard in list_shards("corpus", corpus)}
    kinds = {
        "quality": Cleaning(quality=QualityRules()),
        "repetition": Cleaning(repetition=RepetitionRules()),
        "both": Cleaning(quality=QualityRules(), repetition=RepetitionRules()),
        "none": Cleaning(),
    }
    with TemporaryDirectory() as temporary:

        def tables(key: str) -> list[Path]:
            return sorted(Path(temporary, "read", key).glob("data-*.parquet"))

        def removed(key: str) -> Path:
            return Path(temporary, "duplicates/all/removed", f"{key}.parquet")

        def run(name: str, stage: Stage, keys: list[str]) -> float:
            start = time.process_time()
            for key in keys:
                out = Path(temporary, name, key)
                out.mkdir(parents=True)
                stage(key, out)
            return time.process_time() - start

        def cleaning(kind: str) -> Stage:
            return lambda key, out: clean(tables(key), removed(key), kinds[kind], out=out)

        keys, folders = list(shards), {key: Path(temporary, "signatures", key) for key in shards}
        wall = time.monotonic()
        seconds = {
            "read": run("read", lambda key, out: ingest(shards[key], corpus, out=out), keys),
            "signatures": run("signatures", lambda key, out: write_signatures(tables(key), rules, out=out), keys),
            "duplicates": run("duplicates", lambda _, out: find_duplicates(folders, rules, out=out), ["all"]),
            "clean": run("both", cleaning("both"), keys),
        }
        wall = time.monotonic() - wall
        alone = {kind: run(f"only {kind}", cleaning(kind), keys) for kind in ("none", "quality", "repetition")}
        # The two sets of rules share the splitting into words, and the table that is written.
        seconds["repetition"] = max(0.0, seconds["clean"] - alone["quality"])
        seconds["quality"] = seconds["clean"] - seconds["repetition"]
        documents = (
            pl.concat([pl.scan_parquet(Path(temporary, "both", key, "data-*.parquet")) for key in keys]).select(pl.len()).collect().item()
        )
        read = sum(pl.scan_parquet(tables(key)).select(pl.len()).collect().item() for key in keys)
    return {
        "seconds": {stage: seconds[stage] for stage in STAGES},
        "of which tables of the cleaning": alone["none"],
        "wall_seconds": wall,
        "documents": {"read": read, "kept": documents},
    }


def on_cores(command: list[str], cores: set[int]) -> dict[str, Any]:
    """The JSON that a process pinned to some cores prints last."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), str(len(cores)))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def table(results: dict[str, dict[str, Any]], megabytes: float) -> str:
    """MB a second and core by stage, and how many times faster ours is."""
    lines = [f"{'MB of text a second':24}" + "".join(f"{name:>24}" for name in results) + f"{'ratio':>12}" * (len(results) - 1)]
    for stage in (*STAGES, "together"):
        seconds = [sum(r["seconds"].values()) if stage == "together" else r["seconds"][stage] for r in results.values()]
        rates = "".join(f"{megabytes / max(each, 1e-6):>24.2f}" for each in seconds)
        lines.append(f"{stage:24}{rates}" + "".join(f"{each / max(seconds[0], 1e-6):>12.2f}" for each in seconds[1:]))
    lines += [f"{name}: {r['documents']['read']} documents read, {r['documents']['kept']} kept" for name, r in results.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datatrove", metavar="PYTHON", help="an interpreter that has datatrove; without it ours alone")
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours is not None:
        with TemporaryDirectory() as temporary:  # libraries load what they need
            texts.write_json_lines(Path(temporary), WARM_UP_MEGABYTES)
            ours(Path(temporary))
        print(json.dumps(ours(arguments.ours)))
        return
    with TemporaryDirectory() as temporary:
        megabytes = texts.write_json_lines(Path(temporary), arguments.megabytes, num_files=FILES)
        own = [sys.executable, "-m", "instpt_assets_tests.benchmarks.corpus_against_datatrove", "--ours", temporary]
        results = {"ours": on_cores(own, {arguments.core})}
        if arguments.datatrove:
            other = [arguments.datatrove, str(Path(__file__).with_name("datatrove_side.py")), temporary]
            results["datatrove"] = on_cores(other, {arguments.core})
            results["datatrove, white space"] = on_cores([*other, "--words", "whitespace"], {arguments.core})
    print(f"{megabytes:.1f} MB of text, one core; ratio: datatrove's CPU seconds over ours\n{table(results, megabytes)}")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"megabytes": megabytes, **results}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
