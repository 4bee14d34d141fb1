"""The untrained model `ada`: a tiny Llama with random weights from a fixed seed.

It has two wide layers instead of many narrow ones, because a CPU computes those faster. The
embeddings are not tied, and the initial weights have a standard deviation of 1/sqrt(hidden) instead
of 0.02. With tied embeddings and 0.02, a short pre-training teaches the model little more than word
frequencies, which a later fine-tune must unlearn (measured: a validation accuracy below 50% instead
of 73%).
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
    """Write the config and safetensors files; returns the number of parameters."""
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
