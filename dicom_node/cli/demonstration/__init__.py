"""What ``demo`` shows: a node of its own between a made-up scanner and a throw-away PACS."""
