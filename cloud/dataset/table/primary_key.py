"""The primary key of a Lance table."""

import pyarrow as pa


def primary_key(name: str) -> pa.Field:
    """Return the column of a text that identifies a row."""
    # Lance refuses a second insert of a primary key only if the column is marked as such in its metadata.
    metadata = {"lance-schema:unenforced-primary-key": "true"}
    return pa.field(name, pa.string(), nullable=False, metadata=metadata)
