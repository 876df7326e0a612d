"""Providers on loopback, with faults on demand: for trying things out without an account."""
