"""Train candidates on one or more backbones, evaluate them on held-out labels, and choose the best."""
