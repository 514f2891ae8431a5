"""The web application: guard, rendering, languages, assets, streams."""
