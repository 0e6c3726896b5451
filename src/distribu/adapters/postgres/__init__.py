"""The store, the directory and the queue on PostgreSQL."""
