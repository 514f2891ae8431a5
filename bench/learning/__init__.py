"""Does it really get more accurate? Policies of learning side by side, on real photos."""
