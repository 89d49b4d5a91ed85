"""Every error memr1 raises on purpose. One level per "who can act".

    Memr1Error
    ├── ConfigError              the person who wrote the profile or the command line
    ├── DataError                the person who owns the dataset
    │   ├── DatasetFormatError     a file cannot be read as what it claims to be
    │   └── ExpectationsFailed     the file is readable, its content is refused by a suite
    ├── BankError                the person who runs the memory bank
    │   ├── BankUnavailable        its server or disk does not answer
    │   └── UnknownEntry           an operation names an entry the bank does not hold
    ├── AgentError               the person who chose the model
    │   └── GenerationFailed       the model or its server gave no text
    ├── TrainingError            the person who reads the training log
    │   ├── WorkerFailed           a training process ended with an error
    │   └── CheckpointMissing      a stage asks for weights that are not there
    ├── StorageError             the person who runs the object store
    ├── EvaluationError          the person who reads the report
    └── RegistryError            the person who runs MLflow

A message says what went wrong (with the value), where, and what to do. A bad rollout is data and never
an error; "not promoted" is a result and never an error.
"""


class Memr1Error(Exception):
    """Root of the tree. The command line prints its message and exits with 1."""


class ConfigError(Memr1Error):
    """A profile, an option or the environment is not usable."""


class DataError(Memr1Error):
    """The dataset cannot be used."""


class DatasetFormatError(DataError):
    """A dataset file is missing, damaged, or not in the format it is read as."""


class ExpectationsFailed(DataError):
    """A Great Expectations suite refused an artefact."""


class BankError(Memr1Error):
    """The memory bank cannot do what was asked."""


class BankUnavailable(BankError):
    """The bank's server or disk does not answer."""


class UnknownEntry(BankError):
    """An operation names a memory entry that its bank does not hold."""


class AgentError(Memr1Error):
    """An agent cannot work with its model or prompt."""


class GenerationFailed(AgentError):
    """A model, or the server in front of it, returned no text."""


class TrainingError(Memr1Error):
    """Training cannot start or go on."""


class WorkerFailed(TrainingError):
    """A training process ended with an error."""


class CheckpointMissing(TrainingError):
    """A stage asks for model weights that are not there."""


class StorageError(Memr1Error):
    """A run directory cannot be copied to or from its object store."""


class EvaluationError(Memr1Error):
    """A report cannot be made."""


class RegistryError(Memr1Error):
    """The model registry cannot do what was asked."""
