"""Photos to label: who sees which, and the way of a label to the dataset."""
