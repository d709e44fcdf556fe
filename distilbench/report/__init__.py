"""General reading and showing: loading runs, tables, charts, comparing, exporting."""
