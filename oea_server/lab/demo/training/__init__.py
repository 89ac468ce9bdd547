"""How the demo models are made: text that ships with the system, a tokenizer, a small Qwen3-MoE or
GLM-4.5, AdamW.

    python -m oea_server.lab.demo.training --steps 5000 --work DIR
    python -m oea_server.lab.demo.training --model glm4_moe --steps 5000 --work DIR

Nothing that serves imports this.
"""
