"""The real service for tests that look at it from outside; doubles stand at engine and trainer alone."""
