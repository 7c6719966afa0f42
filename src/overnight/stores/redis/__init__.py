"""Notices between processes by way of Valkey or Redis. Nothing here is needed, or loaded, without one."""
