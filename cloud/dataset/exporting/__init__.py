"""Export labelled photos with the sources of their labels: one module per kind of format."""
