"""datatrove's side of `tokenizing`: runs under a Python of its own that has datatrove, and prints what its tokenizer step took as JSON."""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.readers import ParquetReader  # type: ignore[import-not-found]
from datatrove.pipeline.tokens import DocumentTokenizer  # type: ignore[import-not-found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the tables and the tokenizer")
    parser.add_argument("--batch-documents", type=int, default=1000)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        for name in ("warm-up", "texts"):
            reader = ParquetReader(str(arguments.folder), glob_pattern=f"{name}.parquet", text_key="text", id_key="document_id")
            writer = DocumentTokenizer(
                f"{temporary}/{name}",
                str(arguments.folder / "tokenizer" / "tokenizer.json"),
                eos_token="</s>",
                batch_size=arguments.batch_documents,
                shuffle_documents=False,
            )
            wall, processor = time.perf_counter(), time.process_time()
            executor = LocalPipelineExecutor(pipeline=[reader, writer], tasks=1, workers=1, logging_dir=f"{temporary}/{name}-logs")
            stats = executor.run()
            seconds = {"wall_seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}
        num_tokens = int(stats.stats[-1].stats["tokens"].total)
    json.dump({"num_tokens": num_tokens, **seconds}, sys.stdout)


if __name__ == "__main__":
    main()
