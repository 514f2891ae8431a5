"""The commands on the photos and labels of the dataset."""
