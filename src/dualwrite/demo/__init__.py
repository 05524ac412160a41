"""The demo: two small business systems in SQLite and the project that keeps them in step."""
