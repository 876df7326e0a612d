"""The subcommands of `postroad`."""
