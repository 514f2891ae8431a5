"""A mirror at a site: fetches each bundle once over the uplink, and serves it to the edges there."""
