"""What a monitoring system can read of a service: metrics for Prometheus."""
