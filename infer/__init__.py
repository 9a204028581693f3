"""From images to answers: backends behind one contract, sources of images, classification."""
