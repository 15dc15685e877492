"""Processes: start, watch, feed, limit and end agents. Knows nothing of HTTP, storage or projects."""
