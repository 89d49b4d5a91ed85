"""Where the shipped weights lie. Imports nothing heavy: asking for a path must not cost a second of torch."""

from pathlib import Path

from memr1.config import AgentName
from memr1.errors import CheckpointMissing

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
BUILD_COMMAND = "python -m memr1.tiny.build"


def agent_folder(agent: AgentName, weights: Path = WEIGHTS_FOLDER) -> Path:
    """The Hugging Face folder of one agent. Raises CheckpointMissing when it is not there."""
    folder = weights / agent
    if not (folder / "model.safetensors").is_file():
        raise CheckpointMissing(
            f"the tiny {agent} has no weights in {folder}: make them with `{BUILD_COMMAND}` (about half an hour on two "
            "processor cores), or install memr1 again"
        )
    return folder
