"""Changes that an operator makes at the broker and in the dataset, by the code that the commands use."""
