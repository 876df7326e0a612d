"""`postroad bench`: what this machine sends, measured on an embedded stack of its own."""
