"""Import labelled pictures: one module per format, all of which yield entries; one importer stores them."""
