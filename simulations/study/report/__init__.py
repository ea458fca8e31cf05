"""A study's report: page, tables, charts."""
