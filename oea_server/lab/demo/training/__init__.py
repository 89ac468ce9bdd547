"""How the demo model is made: text that ships with the system, a tokenizer, a small Qwen3-MoE, AdamW.

    python -m oea_server.lab.demo.training --steps 5000 --work DIR

Nothing that serves imports this.
"""
