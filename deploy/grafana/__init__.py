"""The dashboard as code: `python -m deploy.grafana` writes oea-server.json, which Grafana reads."""
