"""Lance, imported without pandas, which it would load for a type alone: 0.2 CPU-seconds and 36 MB."""

from bus.optional_packages import not_found

with not_found("pandas"):
    import lance
    from lance.dataset import ColumnOrdering
    from lance.fragment import write_fragments
    from lance.optimize import Compaction

__all__ = ["ColumnOrdering", "Compaction", "lance", "write_fragments"]
