"""Kill the nodes of a broker or of an object store under load, and count what was lost and doubled."""
