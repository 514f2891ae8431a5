"""Files and folders: written whole or not at all, locked, named by URLs, of the user's cache."""
