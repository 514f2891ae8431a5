"""Count the photos of a dataset by their human label with Polars: `python with_polars.py dataset.lance`."""

import sys

import lance
import polars as pl

photos = pl.scan_pyarrow_dataset(lance.dataset(sys.argv[1]))
counts = (
    photos.filter(pl.col("received_at_ms").is_not_null() & pl.col("forgotten_at_ms").is_null())
    .group_by("human_label")
    .agg(pl.len())
    .sort("human_label", nulls_last=True)
    .collect()
)
for label, count in counts.iter_rows():
    print(label or "unlabelled", count)
