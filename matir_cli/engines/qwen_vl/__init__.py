"""Qwen2.5-VL as judge."""
