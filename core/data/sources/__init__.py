"""Image files in folders and archives: what is an image, what is passed over, and how archives are read safely."""
