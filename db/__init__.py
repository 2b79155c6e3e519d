"""The node's only truth: what was received, what is complete, what is to be done, what was done.

Owns SQLAlchemy and Alembic; every other package calls its functions and never sees a session's SQL.
"""
