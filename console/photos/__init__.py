"""Photos of the dataset for pages: thumbnails and listings, without loading all of them."""
