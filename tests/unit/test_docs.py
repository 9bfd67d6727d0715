"""What is written down agrees with what is there."""

import re

import pytest

from processes import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_lists_every_setting_and_no_other() -> None:
    source = (ROOT / "src/infinity_worker/settings.py").read_text()
    read = set(re.findall(r'(?:read\.\w+|per_model)\(\s*"([A-Z_]+)"', source))
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert listed | {"RUNPOD_ENDPOINT_ID", "RUNPOD_POD_ID"} == read


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_internal_link_leads_somewhere(document: object) -> None:
    path = ROOT / str(document)
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
