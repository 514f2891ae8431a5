"""Count the photos of a dataset by their human label with Spark: `python with_spark.py dataset.lance`.

Each task reads fragments of the table itself, so that nothing passes the driver. All machines need Lance, and
the path or s3:// URL has to be the same for them. Spark needs Java 17.
"""

import os
import sys

import lance
from pyspark.sql import SparkSession

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
path = sys.argv[1]
dataset = lance.dataset(path)
version, fragments = dataset.version, [(one.fragment_id,) for one in dataset.get_fragments()]


def read(batches):
    """Yield the photos of the fragments whose numbers are in the batches."""
    opened = lance.dataset(path, version=version)
    for batch in batches:
        for number in batch["fragment"].to_pylist():
            yield from opened.get_fragment(number).to_batches(
                columns=["human_label"], filter="received_at_ms IS NOT NULL AND forgotten_at_ms IS NULL"
            )


spark = SparkSession.builder.appName("photos by label").config("spark.ui.enabled", "false").getOrCreate()
numbers = spark.createDataFrame(fragments, "fragment int").repartition(max(1, len(fragments)))
photos = numbers.mapInArrow(read, "human_label string")
counts = {row["human_label"]: row["count"] for row in photos.groupBy("human_label").count().collect()}
for label in sorted(counts, key=lambda label: (label is None, label)):
    sys.stdout.write(f"{label or 'unlabelled'} {counts[label]}\n")
spark.stop()
