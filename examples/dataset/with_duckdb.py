"""Count the photos of a dataset by their human label with DuckDB: `python with_duckdb.py dataset.lance`."""

import sys

import duckdb
import lance

photos = lance.dataset(sys.argv[1])  # DuckDB finds it by the name of the variable, and reads what it needs
rows = duckdb.sql(
    """
    SELECT human_label, count(*) FROM photos
    WHERE received_at_ms IS NOT NULL AND forgotten_at_ms IS NULL  -- it has arrived, and was not forgotten
    GROUP BY human_label ORDER BY human_label NULLS LAST
    """
)
for label, count in rows.fetchall():
    print(label or "unlabelled", count)
