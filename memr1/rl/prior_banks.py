"""The training conversations' banks that a phase's examples rest on."""

from memr1.bank.journal import read_journal, records_by_scope
from memr1.bank.operation import JournalRecord
from memr1.config import RunConfig
from memr1.run_dir import RunDir


def read_prior_banks(run: RunDir, config: RunConfig, phase: str) -> dict[str, list[JournalRecord]]:
    """Each conversation's journal, as the Memory Manager of before the phase wrote it.

    Raises BankUnavailable or BankError.
    """
    return records_by_scope(read_journal(run.journal(config, phase)))
