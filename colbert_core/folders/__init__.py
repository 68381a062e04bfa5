"""Folders of files kept in step with an index.

In reading order: ``sync`` in ``syncing`` (what users call), ``planning`` (what has changed), ``reports`` (what was done).
"""
