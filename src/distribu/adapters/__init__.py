"""The real things behind the ports, and their twins in memory."""
