"""The audit trail: its chain and keys, checkpoints outside the database, questions, and what proves it."""
