"""The models: one package per model family, behind the interfaces of `protocols`.

Each family (`sam2`, `clip`, `qwen_vl`) loads weight files and turns numpy images into regions, vectors
or verdicts; `llama_cpp` and `tensors` read the weight files for them. May import `records`, `errors` and
`masks`, never the gallery. The indexing, search and evaluation packages use the engines through
`protocols` and load them with `registry`, mostly by way of `model_sets.session`.
"""
