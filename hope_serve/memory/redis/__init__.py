"""The Redis and Valkey store: staged chunks, one atomic function, waits for the disks that were promised."""
