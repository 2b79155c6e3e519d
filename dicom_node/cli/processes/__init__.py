"""The node's long-running processes, each put together from its settings, and what keeps them going."""
