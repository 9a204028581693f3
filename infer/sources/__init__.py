"""Sources of images: files, folders, globs, archives, arrays, data set splits, standard input."""
