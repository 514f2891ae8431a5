"""Tell people what happens: events and silent nodes, summed up, through Apprise."""
