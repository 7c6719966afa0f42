"""Makes the pages of docs/reference from the code, one module for each kind of source."""
