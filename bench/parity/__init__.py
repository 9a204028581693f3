"""How a backend's answers differ from the reference's, and the verdict on it."""
