"""The one SQL database: schema, queries by aggregate, and the SQLite that carries them."""
