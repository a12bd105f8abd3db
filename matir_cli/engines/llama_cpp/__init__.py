"""llama.cpp: typed bindings and the GGUF header."""
