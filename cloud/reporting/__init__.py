"""Reports of trainings: a page per version, comparisons, curves and experiment tracking."""
