"""What can't be drafted is said in a sentence, with exit code 2."""

import pytest
from typer.testing import CliRunner

from nasmvt.cli.main import app
from nasmvt.drafting import draft


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "pit_ti_224",
            "the maps of a network must divide its images into cells, but those of PoolingVisionTransformer",
        ),
        ("resnet1", "timm knows no network 'resnet1'"),
    ],
)
def test_a_network_that_cannot_be_drafted_is_refused(name, sentence, tmp_path) -> None:
    result = CliRunner().invoke(app, ["draft-space", f"timm:{name}", "--out", str(tmp_path / "a.yaml")])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert not (tmp_path / "a.yaml").exists()


def test_choices_that_timms_code_fixes_share_a_reason() -> None:
    """Width and heads, which are one choice here: a table of biases has the number of heads in its shape."""
    reasons = {why: names for why, names in draft("test_vit_relpos").fixed.items() if "timm's code" in why}
    ((why, names),) = reasons.items()
    assert why.startswith("has a size that timm's code takes from elsewhere too")
    assert names == ["patch_embed_heads"]
