"""OEA for SGLang: batch-aware expert routing inside a serving engine."""
