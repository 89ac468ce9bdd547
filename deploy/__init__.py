"""What runs beside the server: Prometheus rules and the Grafana dashboard."""
