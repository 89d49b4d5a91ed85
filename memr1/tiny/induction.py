"""The start of look-up, set by hand: an induction circuit in the first two layers of a fresh network.

Layer 0 looks one and two tokens back and writes what it saw beside the token's own embedding. Layer 1 attends to the
places whose previous token is the current one, and to those whose last but one is the one before, and writes their
token: it continues whatever was read before. Gradient descent finds the same circuit (Olsson et al., 2022,
"In-context Learning and Induction Heads"), but only after hundreds of steps in which nothing else is learnt.
All other layers are left free and small.
"""

from typing import Any

import torch

FREE_STD = 0.02  # of every weight that is not set by hand
LOOK_BACK = 8.0  # of the biases: the distance wins over its neighbours by about e^6
COPY = 2.0  # what is written of an earlier token, against the share of the token's own embedding read there
MATCH = 2.0  # of queries and keys
WRITE = 1.5  # of the output: the token found outweighs the current one
STEADY_TURN = 3e-3  # radians per token: dimensions that turn less hardly notice a distance


def plant_induction(network: Any) -> None:
    """Overwrite the weights of the layers; needs torch's generator to be seeded, and four heads."""
    first, second = (layer.self_attn for layer in network.model.layers[:2])
    with torch.no_grad():
        for layer in network.model.layers:
            for weight in layer.parameters():
                if weight.dim() == 2:
                    weight.normal_(0.0, FREE_STD)
        # A quarter of the stream each: what is matched of a token, where the last token and the last but one are
        # written, and the rest of the token. Attention reads none of them through another.
        matched, last, last_but_one, rest = _orthogonal(network.config.hidden_size).chunk(4)
        for head, slot in enumerate((last, last_but_one)):
            _plant_look_back(first, head, head + 1, matched, slot, network.config)
        circuits = ((matched, last), (last, last_but_one))
        for head, (query, key) in enumerate(circuit for circuit in circuits for _ in range(2)):
            found = rest if head % 2 else matched
            _plant_match(second, head, query, key, found, network.config)


def _plant_look_back(
    attention: Any, head: int, distance: int, matched: torch.Tensor, slot: torch.Tensor, config: Any
) -> None:
    turns = _turns(config)
    fast = len(turns) // 2  # they tell neighbours apart
    query, key = torch.zeros(2 * len(turns)), torch.zeros(2 * len(turns))
    query[:fast] = torch.cos(distance * turns[:fast])
    query[len(turns) : len(turns) + fast] = -torch.sin(distance * turns[:fast])
    key[:fast] = 1.0
    rows = slice(head * len(key), (head + 1) * len(key))
    attention.q_proj.weight[rows] = 0.0
    attention.k_proj.weight[rows] = 0.0
    attention.q_proj.bias[rows] = LOOK_BACK * query
    attention.k_proj.bias[rows] = LOOK_BACK * key
    attention.v_proj.weight[rows] = matched
    attention.o_proj.weight[:, rows] = COPY * slot.T / config.hidden_size**0.5  # undoes the norm


def _plant_match(
    attention: Any, head: int, query: torch.Tensor, key: torch.Tensor, found: torch.Tensor, config: Any
) -> None:
    steady = (_turns(config) < STEADY_TURN).repeat(2)[:, None]
    rotation = _orthogonal(len(query))
    rows = slice(head * len(query), (head + 1) * len(query))
    attention.q_proj.weight[rows] = MATCH * steady * (rotation @ query)
    attention.k_proj.weight[rows] = MATCH * steady * (rotation @ key)
    attention.v_proj.weight[rows] = found
    attention.o_proj.weight[:, rows] = WRITE * found.T


def _turns(config: Any) -> torch.Tensor:
    """Radians per token of each pair of a head's dimensions: shape (head / 2,)."""
    head = config.hidden_size // config.num_attention_heads
    return torch.pow(float(config.rope_parameters["rope_theta"]), -(torch.arange(0, head, 2) / head))


def _orthogonal(size: int) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(torch.randn(size, size))[0]
    return basis
