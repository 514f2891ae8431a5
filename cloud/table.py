"""A Lance table at its place: made if there is none, brought to today's layout, opened anew for each use."""

import re
from pathlib import Path

import lance
import pyarrow as pa
import structlog

from cloud.commit import drop_torn_manifests, exclusive, local_root, make_folders, sync_version
from schemas.errors import PermanentError, TransientError

_METADATA_CACHE_BYTES = 64 * 1024 * 1024
# Where in Lance's own source it says so, and whatever follows on further lines.
_RUST_SOURCE = re.compile(r"(, \S+\.rs:\d+:\d+.*|\n.*)", re.DOTALL)

log = structlog.get_logger()


def new_session() -> lance.Session:
    """Return a cache for the metadata of a table."""
    return lance.Session(metadata_cache_size_bytes=_METADATA_CACHE_BYTES)


def place(url: str | Path) -> tuple[str, Path | None]:
    """Return a table's URL as Lance takes it, and its folder if it is local."""
    root = local_root(str(url))
    return str(url if root is None else root), root


def newest(url: str, session: lance.Session) -> lance.LanceDataset:
    """Open the newest version.

    Raises:
        TransientError: There is no table now; it is never made anew, because it may come back.
    """
    try:
        return lance.dataset(url, session=session)
    except (OSError, ValueError) as error:
        raise unavailable(url, "to be there", error) from None


def unavailable(url: str, expected: str, error: Exception) -> TransientError:
    """Return the error to raise where Lance or the disk refuses."""
    return TransientError(f"table {url}", expected=expected, got=_RUST_SOURCE.sub("", str(error)))


def prepare(url: str, root: Path | None, schema: pa.Schema, *, create: bool = True) -> None:
    """Make a table ready for this version: there, whole, and of today's layout.

    Args:
        url: Where it is.
        root: Its folder if it is local.
        schema: Today's layout. A layout is changed by further columns, which are null in older rows.
        create: Make an empty one if there is none.

    Raises:
        PermanentError: There is none, none can be at such a place, or it has a layout that is not known.
        TransientError: The place cannot be reached or written now.
    """
    try:
        if root is not None:
            if not create and not (root / "_versions").is_dir():
                raise _absent(url)
            root.mkdir(parents=True, exist_ok=True)
        with exclusive(root):
            if root is not None:
                make_folders(root)
                drop_torn_manifests(root)
            dataset = _opened(url, schema, create=create)
            _migrate(dataset, url, schema)
            sync_version(root, dataset.version)
    except OSError as error:
        raise unavailable(url, "a place to read and write", error) from None
    except ValueError as error:  # Lance's word for a URL that it does not know
        said = unavailable(url, "a folder or URL", error)
        raise PermanentError(said.subject, expected=said.expected, got=said.got) from None


def _absent(url: str) -> PermanentError:
    return PermanentError(f"table {url}", expected="a dataset", got="none there")


def _opened(url: str, schema: pa.Schema, *, create: bool) -> lance.LanceDataset:
    try:
        return lance.dataset(url)
    except ValueError as error:
        if "not found" not in str(error):
            raise
    if not create:
        raise _absent(url)
    try:
        return lance.write_dataset(schema.empty_table(), url)
    except OSError:
        return lance.dataset(url)  # another process made it in between


def _migrate(dataset: lance.LanceDataset, url: str, schema: pa.Schema) -> None:
    """Add the columns that an earlier layout did not have; the caller holds the lock.

    Raises:
        PermanentError: It has columns that are not known, or it is no table of ours at all.
    """
    known = list(schema)
    unknown = [field.name for field in dataset.schema if field not in known]
    required = [field.name for field in known if not field.nullable]
    if unknown or not set(required) <= set(dataset.schema.names):
        raise PermanentError(
            f"table {url}",
            expected=f"columns of {schema.names}, as this version of gleaner knows them",
            got=f"others, maybe of a later version: {unknown}" if unknown else f"none of {required}",
        )
    missing = [field for field in known if field.name not in dataset.schema.names]
    if missing:
        dataset.add_columns(pa.schema(missing))
        log.info("table.migrated", table=url, columns=[field.name for field in missing])
