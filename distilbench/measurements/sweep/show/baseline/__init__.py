"""A baseline as files for other programs and people: metrics, a table, two pictures, and a report in plain text."""
