"""The audit trail in the words of PS3.15 A.5, and its way to a syslog sink."""
