"""Tables of long documents are written and read in bounded memory."""

from pathlib import Path

import pyarrow as pa

from instpt_assets.corpus.tables import DOCUMENTS, TableWriter, read_rows


def test_long_documents_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    with TableWriter(tmp_path, "data", DOCUMENTS) as table:
        for number in range(48):
            table.write({"document_id": str(number), "text": f"{number} " * 400_000, "source": "s", "metadata": "{}"})
    before, most, ids = pa.total_allocated_bytes(), 0, []
    for row in read_rows(sorted(tmp_path.glob("data-*.parquet")), DOCUMENTS.names):
        most = max(most, pa.total_allocated_bytes() - before)
        ids.append(row["document_id"])
    assert ids == [str(number) for number in range(48)]
    assert most < 30_000_000 < 48 * 1_200_000
