"""Options that would do nothing on account of another one are refused, before anything is read."""

import pytest


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("compare r --address auto", "--address does nothing without --against: leave it out"),
        ("compare r --against random --accept-unfinished", "--accept-unfinished does nothing with --against"),
        ("report r --every 5", "--every does nothing without --watch"),
        ("predict m a.png --count 3", "--count does nothing where images are given"),
        ("benchmark m --set tasks.cls.data.root=/x", "--set does nothing without --fps"),
        ("benchmark m --fps 9 --batch 2 --seconds 1", "--batch, --seconds do nothing with --fps: leave them out"),
        ("export r --any-size --task cls", "--task, --any-size do nothing without --onnx, --with-preprocessing, "),
        ("export r --onnx --keep-float stem", "--keep-float does nothing without --int8"),
        ("export m --onnx --out x --arch a", "--arch, --out do nothing where m is an exported folder"),
        ("profile s --device cuda", "--device does nothing without --latency"),
        ("profile s --memory --device cuda", "--device does nothing with --memory, which measures on the CPU"),
        ("measure-latency s --kit k --out t.json --runtime onnx", "--runtime, --out do nothing with --kit"),
        ("measure-latency s --kit k --times t.json", "--times does nothing with --kit"),
        ("measure-latency s --times t.json --threads 2 --rounds 9", "--threads, --rounds do nothing with --times"),
        ("predict m --runtime onnx --device cuda", "the runtime 'onnx' computes on the CPU, not on 'cuda'"),
        ("evaluate m --runtime int8 --precision bf16", "'int8' computes in the numbers of its files, not in 'bf16'"),
    ],
)
def test_options_without_effect_are_refused(nasmvt, tmp_path, line, sentence) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").touch()
    assert sentence in nasmvt.refused(*line.split())
