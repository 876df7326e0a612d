"""Celery workers: deliver, record, notify; and the beat that finds due work."""
