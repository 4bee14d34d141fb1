"""A small, exact server of OpenAI's completions API for fine-tuned models, on a CPU or one GPU.

`completion` generates text and needs no server: `finetune complete` uses it, too. `wire` parses
requests and builds answers, and is pure. `models` finds, verifies, loads, and unloads models, and
`routes` has the endpoints. A field that is not supported is refused: none is ignored.
"""
