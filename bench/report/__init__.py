"""Reports of a benchmark: data, tables, plots and pages."""
