"""Write trained models as SavedModel and LiteRT bundles."""
