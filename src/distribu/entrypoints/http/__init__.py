"""Distribu as an HTTP API."""
