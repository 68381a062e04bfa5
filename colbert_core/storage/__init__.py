"""Keeps an index on disk or in memory: SQLite holds what changes, and files that never change hold the vectors."""
