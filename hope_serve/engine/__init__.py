"""Plan, load, run, commit, reply: one loop that batches every request."""
