"""Write prometheusrule.yaml, and the sizing table into deploy/README.md."""

from deploy.k8s import rules, sizing

rules.FILE.write_text(rules.text())
sizing.README.write_text(sizing.readme())
