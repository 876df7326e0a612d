"""HTTP in: authenticate, read a shape, validate, store, ring the bell. Also reads, hooks, tracking and ops."""
