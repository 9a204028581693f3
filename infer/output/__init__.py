"""Where answers go: tables, files, folders, pages."""
