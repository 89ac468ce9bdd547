"""The dashboard drawn by Grafana's own components, with numbers of a server under load."""
