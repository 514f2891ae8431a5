"""Judge what components report, for `gleaner doctor` and the console: plain functions without I/O."""
