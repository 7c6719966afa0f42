"""Which version of Overnight this is. Package metadata says the same, but to read that takes 1.7 MiB and 20 ms."""

VERSION = "0.1.0"
