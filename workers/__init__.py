"""Jobs in motion: claiming, scoring, delivering, retrying. Owns Celery; imports the edges, never the reverse."""
