"""Twins of every port that need no disk and no socket: for tests, demonstrations and the harness."""
