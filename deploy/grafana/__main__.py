"""Write oea-server.json."""

from deploy.grafana.dashboard import FILE, text

FILE.write_text(text())
