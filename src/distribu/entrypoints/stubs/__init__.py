"""Third parties that are none: for tests, and for development without their keys."""
