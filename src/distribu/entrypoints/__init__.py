"""The doors: HTTP, the command line, the worker, the harness, and embedding."""
