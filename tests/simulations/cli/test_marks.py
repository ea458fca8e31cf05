"""``fedderm marks`` says of each image whether it may carry a mark, also after a broken one."""

from pathlib import Path

from common.data.dataset import IMAGE_FOLDER
from tests.commands import Type


def test_the_command_says_it_of_each_image(
    fedderm: Type, tuned: Path, network_file: Path, synthetic_folder: Path, tmp_path: Path
) -> None:
    images = sorted((synthetic_folder / IMAGE_FOLDER).iterdir())[:2]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths = *images, tmp_path / "broken.jpg"
    options = "--weights", network_file
    code, said, error = fedderm("marks", tuned, synthetic_folder, *paths, *options)
    assert said, error
    first, *lines = said.splitlines()
    assert " usual images: entropy " in first
    assert [line.split(":")[0] for line in lines] == [str(file) for file in images]
    assert code == (3 if "may carry a mark" in said else 1)
    assert "broken.jpg" in error
