"""The server's side of workers elsewhere: leases over REST, and what they record."""
