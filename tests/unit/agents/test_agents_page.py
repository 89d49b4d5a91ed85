import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "agents.md"


def test_the_example_of_the_agents_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    exec(found[1], {})
    assert capsys.readouterr().out.startswith("{'ADD':")
