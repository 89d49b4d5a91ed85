"""The registered model itself, as MLflow runs it ("models from code": nothing is pickled).

Input: a data frame with the columns `conversation` (JSON text) and `question`. Output: the column `answer`.
MLflow executes this file when the model is loaded; nothing else imports it.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from memr1.agents.pair import load_pair
from memr1.bank.embedding import build_embedder
from memr1.registry.answering import PairServer


class ServedPair(PythonModel):
    """Both agents behind MLflow's pyfunc interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load both agents from the bundle."""
        self._server = PairServer(load_pair(Path(context.artifacts["pair"])), build_embedder())

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One answer per row."""
        answers = self._server.answer(list(model_input["conversation"]), list(model_input["question"]))
        return pd.DataFrame({"answer": answers})


mlflow.models.set_model(ServedPair())
