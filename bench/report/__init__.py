"""Reports of a benchmark: data, tables, notes, plots and pages."""
