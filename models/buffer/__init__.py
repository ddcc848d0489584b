"""The Redis side: keys, scripts, and the values that go in and out of them. Knows nothing of Postgres."""
