"""Systems that learn nothing: what training must beat to be worth its cost."""

from collections.abc import Sequence

from memr1.agents.memory_manager import ManagerDecision, ManagerRequest
from memr1.bank.operation import Operation


class AlwaysAddManager:
    """Remembers every fact as it was said and never changes or removes one: retrieval over everything ever said.

    The operations of Mem0-style managers must earn their place against this (arXiv 2508.19828, table 2 has none like
    it). It calls no model.
    """

    name = "always_add"

    def decide(self, requests: Sequence[ManagerRequest]) -> list[ManagerDecision]:
        """One ADD per fact of each turn."""
        return [
            ManagerDecision(
                operations=tuple(Operation(kind="ADD", text=fact) for fact in request.facts),
                failure=None,
                completion="",
            )
            for request in requests
        ]
