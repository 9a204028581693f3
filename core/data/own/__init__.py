"""The user's own data: which layout a folder or archive has, its splits and labels, and its images, decoded once."""
