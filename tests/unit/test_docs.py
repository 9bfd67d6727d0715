"""What is written down agrees with what is there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from processes import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_lists_every_setting_and_no_other() -> None:
    source = (ROOT / "src/infinity_worker/settings.py").read_text()
    read = set(re.findall(r'(?:read\.\w+|per_model)\(\s*"([A-Z_]+)"', source))
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert listed | {"RUNPOD_ENDPOINT_ID", "RUNPOD_POD_ID"} == read


def test_the_tests_that_the_documents_name_exist() -> None:
    for document in DOCUMENTS:
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text()):
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{file}::{name}"


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


@pytest.mark.parametrize(
    ("tag", "changelog", "status"),
    [
        ("v1.2.3", "## 1.2.3\n\n- a change\n\n## 1.2.2\n\n- another\n", 0),
        ("v1.2.4", "## 1.2.3\n\n- a change\n", 1),
        ("v1.2.3", "## Unreleased\n\n- a change\n", 1),
        ("v1.2.3", "## 1.2.3\n\n## 1.2.2\n\n- another\n", 1),
    ],
)
def test_a_release_is_what_its_tag_says(
    tmp_path: Path, tag: str, changelog: str, status: int
) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "check-release.sh"
    shutil.copy(ROOT / "scripts" / script.name, script)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    done = subprocess.run([script, tag, "--notes"], capture_output=True, text=True, check=False)
    assert done.returncode == status
    if status == 0:
        assert done.stdout.strip() == "- a change"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_internal_link_leads_somewhere(document: object) -> None:
    path = ROOT / str(document)
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target
