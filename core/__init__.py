"""What every room shares: cards, errors, data sets, images, architectures, checkpoints, the machine."""
