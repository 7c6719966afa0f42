"""A worker without a database: the engine's unit of work and run source over the lease routes."""
