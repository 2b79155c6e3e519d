"""The storage SCP: what arrives becomes durable, and only then gets Success; its row makes it known."""
