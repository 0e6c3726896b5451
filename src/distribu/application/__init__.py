"""What can be done with Distribu: one class per use case, and the ports they need."""
