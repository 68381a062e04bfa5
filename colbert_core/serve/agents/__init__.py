"""Indexes as tools of an agent, by the Model Context Protocol: ``colbert mcp``.

In reading order: tools (what each tool does), results (what it gives, as values and as text), budget (how long that may be),
problems (what is said where something went wrong), server (names and descriptions for a model), stdio and http (the two ways to
reach it), running (from paths to a server).
"""
