"""The `colbert` command."""
