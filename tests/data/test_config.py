import subprocess
import sys
from pathlib import Path

import pytest

from nasmvt.config import parse
from nasmvt.data import AugmentationConfig, DataConfig
from nasmvt.errors import UserError


def test_one_number_is_a_square_canvas():
    assert DataConfig(image_size=96).image_size == (96, 96)
    assert DataConfig(image_size=(48, 64)).image_size == (48, 64)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({"image_size": 8}, "at least 16"),
        ({"search_fraction": 0}, "search_fraction"),
        ({"search_fraction": 1}, "search_fraction"),
        ({"classes": ["a", "a"]}, "each once"),
        ({"mean": [124, 116, 104]}, "divide by 255"),
        ({"std": [0, 1, 1]}, "divide by 255"),
        ({"augmentation": {"scale": [2.0, 0.5]}}, "low <= high"),
        ({"augmentation": {"crop_scale": 0.01}}, "augmentation.crop_scale"),
        ({"train_image": 3}, "did you mean 'train_images'"),
    ],
)
def test_bad_values_are_refused_by_name(values, fragment):
    with pytest.raises(UserError, match=r"my\.yaml") as error:
        parse(DataConfig, values, "my.yaml")
    assert fragment in str(error.value)


@pytest.mark.parametrize("model", [DataConfig, AugmentationConfig])
def test_every_field_is_documented(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_opening_drawn_data_loads_neither_timm_nor_the_mask_library():
    program = (
        "import sys; from nasmvt.data import DataConfig, open_dataset; "
        "open_dataset(DataConfig(), 'detection', 'train', 0)[0]; "
        "print([m for m in ('timm', 'faster_coco_eval') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert shown.stdout.strip() == "[]"
