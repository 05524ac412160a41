"""Keep the tables of two business systems in step, both ways."""
