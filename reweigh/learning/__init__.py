"""Learning from a log alone: improvement by importance weights, and the test that it is one."""
