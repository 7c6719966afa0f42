"""Other durable queues, each driven by a small program of its own at its documented defaults."""
