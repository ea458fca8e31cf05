"""Studies: routes and ways of data, cross-validated and compared."""
