"""The one network shape of both tiny agents (Qwen2), and how an optimiser is set up for it."""

from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from memr1.records import Record
from memr1.tiny.induction import plant_induction

VOCABULARY_SIZE = 1408  # pieces of the tokeniser: byte-level BPE plus the added ones
ROPE_THETA = 1e6  # as in Qwen2.5: half of a head's dimensions hardly turn over a prompt
NUM_HEADS = 4  # what the planted look-up needs


class Shape(Record):
    """The size of the network. The default has 0.82 M parameters."""

    hidden_size: int = 128
    num_layers: int = 4
    mlp_size: int = 256
    vocabulary_size: int = VOCABULARY_SIZE


def build_network(shape: Shape, seed: int) -> Any:
    """A fresh network that can already look things up. `Any`: transformers' classes are not typed."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS,
        max_position_embeddings=32_768,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=shape.hidden_size**-0.5,  # embeddings of length one
        tie_word_embeddings=True,
    )
    config._attn_implementation = "sdpa"
    network = Qwen2ForCausalLM(config)
    plant_induction(network)
    return network


def build_optimizer(network: Any, learning_rate: float) -> torch.optim.AdamW:
    """AdamW as in the measured recipe."""
    return torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)


def take_step(network: Any, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One optimiser step, gradients clipped to norm 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
