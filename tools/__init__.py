"""Programs for maintainers, run from a checkout as python -m rtk.tools.NAME; the wheel does not contain them."""
