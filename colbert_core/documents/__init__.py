"""Files of every kind, read as text with what is known of it, and cut into passages.

In reading order: ``part`` (what a reader yields), ``formats`` (which reader reads a file), the readers, ``pieces`` (parts cut
into passages).
"""
