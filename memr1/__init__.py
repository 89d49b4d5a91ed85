"""memr1: memory for language models, learned by reinforcement and run as an operated system."""

__version__ = "0.1.0"
