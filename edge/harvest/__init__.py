"""Select the photos worth learning from and send them as samples."""
