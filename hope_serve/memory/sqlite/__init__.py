"""The embedded store: one SQLite file, one writer, a key beside it when none is configured."""
