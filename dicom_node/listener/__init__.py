"""The storage SCP: what arrives becomes a durable file and a committed row, and only then gets Success."""
