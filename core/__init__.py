"""Code that every room uses: cards, errors, data sets, images, architectures, checkpoints, the machine."""
