"""The Lance table below the dataset: opening, durable commits, and which fragment holds which photo."""
