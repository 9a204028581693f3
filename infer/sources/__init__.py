"""Where images come from: files, folders, globs, archives, arrays, splits, standard input."""
