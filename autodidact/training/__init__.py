"""Adapting the base: supervised fine-tuning of a LoRA adapter."""
