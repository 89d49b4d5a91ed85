"""Compile DeepSpeed's extension for training on a CPU ahead of the first run: `python -m memr1.rl.compile`.

Without this every training process would compile it at its first start (half a minute, over 1 GB of memory each).
Needs a C++ compiler; on a GPU machine there is nothing to do.
"""

from memr1.environment import set_environment_defaults


def main() -> None:
    """Compile and cache; PyTorch keeps the result in its extensions folder (~/.cache/torch_extensions)."""
    set_environment_defaults()
    from deepspeed.comm.torch import build_shm_op

    build_shm_op()


if __name__ == "__main__":
    main()
