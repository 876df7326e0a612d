"""The operators' dashboard at ``/ops``: pages made on the server, for people who look after the queues."""
