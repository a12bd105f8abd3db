"""The judge: Qwen2.5-VL or Qwen3-VL reranks photos and grounds objects, through llama.cpp.

`judge` is the engine for both; `family` says in what they differ. `boxes` and `options` are free of llama.cpp
and hold geometry, prompts and the answer grammar; `preflight` checks files before loading, by the rules in
`text_rules` and `projector_rules`; `answers` and `prefix_cache` make it fast. May import `llama_cpp` and the
modules at the root of `engines`; loaded by the registry alone.
"""
