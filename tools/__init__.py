"""Programs for maintainers, run from a checkout: python -m rtk.tools.NAME. The wheel leaves them out."""
