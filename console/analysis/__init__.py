"""What pages compute: plain functions, without requests and templates."""
