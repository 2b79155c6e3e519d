"""Jobs in motion: claiming, scoring, delivering, retrying.

Owns Celery. Imports the DICOM edges and the heart of inference, never the command line.
"""
