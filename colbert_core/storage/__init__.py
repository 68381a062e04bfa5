"""What is kept on disk: SQLite for what changes, files that never change for vectors."""
