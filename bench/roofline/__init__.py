"""The ceiling of a cell: the rates of the device, and the work of the graph."""
