"""Running it: the `postroad` command, the embedded stack behind `postroad up`, its demo and its local inbox."""
