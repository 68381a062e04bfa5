"""The client of the service: an index that is somewhere else. Needs httpx, and nothing of the service's own packages."""
