"""`ada` before its first lesson: a tiny Llama whose weights are drawn from a seed.

Two wide layers rather than many narrow ones: on a CPU they do more arithmetic in the same time.
The embeddings are not tied and the weights start at 1/sqrt(hidden) instead of Llama's 0.02: in so
short a pre-training a tied, flat model learns little beyond how frequent each word is, and what
continues from it has to unlearn that first (measured: under 50 % validation accuracy, not 73 %).
"""

from __future__ import annotations

from pathlib import Path

from examples.demo.tokenizer import BOS, CONTEXT, EOS, PAD, SPECIAL, VOCABULARY

SEED = 20_260_106
HIDDEN = 256
LAYERS = 2
FEED_FORWARD = 768
HEADS = 8


def write_base_model(folder: Path, seed: int = SEED) -> int:
    """Write config.json, generation_config.json and safetensors; returns the parameters."""
    import torch
    import transformers

    transformers.logging.disable_progress_bar()
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        initializer_range=HIDDEN**-0.5,
        tie_word_embeddings=False,
        bos_token_id=SPECIAL.index(BOS),
        eos_token_id=SPECIAL.index(EOS),
        pad_token_id=SPECIAL.index(PAD),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())
