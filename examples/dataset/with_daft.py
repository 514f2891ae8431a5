"""Count the photos of a dataset by their human label with Daft: `python with_daft.py dataset.lance`."""

import sys

import daft

photos = daft.read_lance(sys.argv[1])
counts = (
    photos.where(daft.col("received_at_ms").not_null() & daft.col("forgotten_at_ms").is_null())
    .groupby("human_label")
    .agg(daft.col("photo_id").count())
    .sort("human_label")  # null comes last
    .to_pydict()
)
for label, count in zip(counts["human_label"], counts["photo_id"], strict=True):
    print(label or "unlabelled", count)
