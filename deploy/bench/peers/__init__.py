"""The usual ways to send mail with Python, measured beside ours: same mail, same server, same machine, same run."""
