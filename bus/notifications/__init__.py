"""Notify people of events and silent nodes, summed up, through Apprise."""
