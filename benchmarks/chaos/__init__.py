"""A node under load and under random faults, and the proof afterwards that nothing was lost or doubled."""
