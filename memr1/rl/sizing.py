"""What a training takes of a GPU's memory: the arithmetic behind deepspeed_configs/README.md, where it is explained.

Everything is in bytes and for one GPU. Weights, gradients and activations are bf16 (2 bytes), Adam's states fp32.
What it leaves out it gives room: CUDA's own memory and fragmentation (`RESERVED`).
"""

from typing import Literal

from memr1.records import Record

GIB = 2**30
RESERVED = 3 * GIB
LOGITS_CHUNK_TOKENS = 256  # TRL's fused head holds the logits of so many tokens at once, in fp32, with their gradient
Sharding = Literal["zero1", "zero2", "zero3", "zero3_offload"]
SHARDINGS: tuple[Sharding, ...] = ("zero1", "zero2", "zero3", "zero3_offload")


class ModelShape(Record):
    """What counts of a Qwen2 or Llama model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int
    head_size: int = 128
    tied: bool = False  # input and output embedding are one
    bias: bool = True  # of the query, key and value projections (Qwen2)

    @property
    def num_parameters(self) -> int:
        """All weights."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        biases = (self.heads + 2 * self.key_value_heads) * self.head_size if self.bias else 0
        layer = sum(rows * columns for rows, columns in self.projections) + biases + 2 * self.hidden
        return embeddings + self.layers * layer + self.hidden

    @property
    def projections(self) -> list[tuple[int, int]]:
        """Shapes of a layer's matrices, which LoRA adapts."""
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        mlp = [(self.hidden, self.intermediate)] * 3
        return [(self.hidden, queries), (self.hidden, keys), (self.hidden, keys), (queries, self.hidden), *mlp]

    def num_adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA adapter on every projection."""
        return self.layers * sum(rank * (rows + columns) for rows, columns in self.projections)

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token."""
        return 2 * 2 * self.layers * self.key_value_heads * self.head_size

    @property
    def activation_bytes_per_token(self) -> int:
        """What one layer keeps of one token for its backward pass (attention scores are never kept).

        Two norms in fp32 and bf16, residuals, attention's input and output: 20 h; gate, up, activation, product: 8 I;
        queries, keys and values before and after rotation: 4 per element.
        """
        attention = (self.heads + 2 * self.key_value_heads) * self.head_size
        return 20 * self.hidden + 8 * self.intermediate + 4 * attention


SHAPES: dict[str, ModelShape] = {
    "Qwen2.5-0.5B": ModelShape(
        layers=24,
        hidden=896,
        intermediate=4864,
        heads=14,
        key_value_heads=2,
        vocabulary=151936,
        head_size=64,
        tied=True,
    ),
    "Qwen2.5-1.5B": ModelShape(
        layers=28, hidden=1536, intermediate=8960, heads=12, key_value_heads=2, vocabulary=151936, tied=True
    ),
    "Qwen2.5-3B": ModelShape(
        layers=36, hidden=2048, intermediate=11008, heads=16, key_value_heads=2, vocabulary=151936, tied=True
    ),
    "Qwen2.5-7B": ModelShape(
        layers=28, hidden=3584, intermediate=18944, heads=28, key_value_heads=4, vocabulary=152064
    ),
    "Llama-3.1-8B": ModelShape(
        layers=32, hidden=4096, intermediate=14336, heads=32, key_value_heads=8, vocabulary=128256, bias=False
    ),
    "Qwen2.5-14B": ModelShape(
        layers=48, hidden=5120, intermediate=13824, heads=40, key_value_heads=8, vocabulary=152064
    ),
}


class Setting(Record):
    """How a training is run: the paper's lengths, one rollout group per pass, the Memory Manager's training."""

    sharding: Sharding = "zero2"
    num_gpus: int = 1
    lora_rank: int | None = None
    checkpointing: bool = True
    prompt_tokens: int = 4096
    response_tokens: int = 2048
    micro_batch: int = 5  # completions of one prompt
    decode_batch: int = 10  # completions decoded together …
    decode_prompts: int = 2  # … and their prompts
    with_partner: bool = True  # a frozen Answer Agent on every GPU


class MemoryNeed(Record):
    """One GPU's share, in bytes."""

    states: int  # weights, gradients, Adam, the reference policy: all the time
    partner: int  # all the time
    sampling: int  # while completions are decoded
    loss: int  # while a micro-batch runs forwards and backwards

    @property
    def peak(self) -> int:
        """The most that is needed at once."""
        return self.states + self.partner + max(self.sampling, self.loss) + RESERVED


def estimate_memory(shape: ModelShape, setting: Setting) -> MemoryNeed:
    """What one GPU needs."""
    return MemoryNeed(
        states=_states(shape, setting),
        partner=2 * shape.num_parameters if setting.with_partner else 0,
        sampling=_sampling(shape, setting),
        loss=_loss(shape, setting),
    )


def _states(shape: ModelShape, setting: Setting) -> int:
    gpus = setting.num_gpus
    base = shape.num_parameters
    trained = base if setting.lora_rank is None else shape.num_adapter_parameters(setting.lora_rank)
    frozen = 2 * base  # the reference policy's weights; with LoRA they are the base that is trained upon
    if setting.sharding == "zero1":
        return 4 * trained + 12 * trained // gpus + frozen
    if setting.sharding == "zero2":
        return 2 * trained + 14 * trained // gpus + frozen
    if setting.sharding == "zero3":
        return 16 * trained // gpus + frozen // gpus
    return 2 * trained // gpus  # gradients; everything else waits in the host's memory


def _sampling(shape: ModelShape, setting: Setting) -> int:
    whole = 2 * shape.num_parameters if setting.sharding.startswith("zero3") else 0  # gathered on every GPU
    cache = setting.decode_batch * (setting.prompt_tokens + setting.response_tokens) * shape.cache_bytes_per_token
    reading = setting.decode_prompts * setting.prompt_tokens * 2 * (3 * shape.intermediate + 4 * shape.hidden)
    return whole + cache + reading + 10 * setting.decode_batch * shape.vocabulary


def _loss(shape: ModelShape, setting: Setting) -> int:
    rows, prompt = setting.micro_batch, setting.prompt_tokens
    tokens = prompt + rows * setting.response_tokens  # the prompt runs once
    repeated = rows * prompt * shape.cache_bytes_per_token
    layer = tokens * shape.activation_bytes_per_token
    joined = rows * (prompt + setting.response_tokens) * shape.cache_bytes_per_token // shape.layers
    kept = tokens * 2 * shape.hidden * shape.layers if setting.checkpointing else (layer + joined) * (shape.layers - 1)
    gathered = 4 * shape.num_parameters // shape.layers if setting.sharding.startswith("zero3") else 0  # two layers
    return kept + layer + joined + repeated + gathered + 8 * LOGITS_CHUNK_TOKENS * shape.vocabulary


def choose_sharding(shape: ModelShape, setting: Setting, gpu_gib: float) -> Sharding | None:
    """The first sharding of `SHARDINGS` that fits; with one GPU there is nothing to shard, only to offload."""
    choices: tuple[Sharding, ...] = SHARDINGS if setting.num_gpus > 1 else ("zero2", "zero3_offload")
    for sharding in choices:
        need = estimate_memory(shape, setting.model_copy(update={"sharding": sharding}))
        if need.peak <= gpu_gib * GIB:
            return sharding
    return None


def render_table() -> str:
    """Which sharding fits each model on usual machines, for all weights and for LoRA, in Markdown."""
    machines = [(gpus, gib) for gpus in (1, 4, 8) for gib in (24, 48, 80, 139)]
    head = "| model | trained | " + " | ".join(f"{gpus}×{gib}" for gpus, gib in machines) + " |"
    lines = [head, "|---" * (len(machines) + 2) + "|"]
    for name, shape in SHAPES.items():
        for trained, rank in (("all", None), ("LoRA", 16)):
            chosen = [
                choose_sharding(shape, Setting(num_gpus=gpus, lora_rank=rank), gib) or "–" for gpus, gib in machines
            ]
            lines.append(f"| {name} | {trained} | " + " | ".join(chosen).replace("zero3_offload", "offload") + " |")
    return "\n".join(lines) + "\n"
