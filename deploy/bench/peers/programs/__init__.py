"""What a user of each peer would write. Run by the peer's own Python, so nothing here imports anything of ours."""
