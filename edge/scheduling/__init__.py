"""The order in which photos are classified: fair between devices, bounded, suspected photos alone."""
