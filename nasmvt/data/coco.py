"""Detection in the layout of COCO: images, and one JSON file of boxes and masks per split."""

from collections.abc import Mapping, Sequence

from nasmvt.data.coco_files import find_annotations, find_images, locate
from nasmvt.data.coco_json import read_annotations
from nasmvt.data.dataset import Request, text_digest
from nasmvt.data.detected import Annotations, Detected
from nasmvt.data.folders import FileList, LeftOut, images_in
from nasmvt.data.formats import register_format
from nasmvt.data.names import Names
from nasmvt.errors import UserError


@register_format("coco", "detection")
class Coco(Detected):
    """COCO's annotations.

    Labels are the ranks of the training split's category ids in ascending order, so ids may have gaps; the categories
    of another split are matched by name and may be fewer.

    Raises:
        UserError: if a file is missing or breaks a rule of the format, or a split has a category that
            the training split lacks.
    """

    def __init__(self, request: Request) -> None:
        root, name = request.root, request.split_name
        path = find_annotations(root, name)
        content = read_annotations(path)
        if not len(content.files):
            raise UserError(f"{path} lists no images: add them or name another split")
        folder = find_images(root, name, path)
        files = locate(content.files, folder, root, path)

        def train() -> tuple[Annotations, Names]:
            first = read_annotations(find_annotations(root, request.config.train_split))
            return first.annotations, first.files

        super().__init__(request, files, content.ids, content.sizes, content.annotations, train)
        self.left_out = _left_out(files) if folder.name != "images" else {}

    def digest(self) -> str:
        """Return a digest over the names and sizes of the images, and the content of the annotation file."""
        annotations = FileList(self._source.parent, [self._source.name])
        return text_digest(self._files.digest(), annotations.digest(contents=True))


def _left_out(files: FileList) -> Mapping[str, Sequence[str]]:
    left_out, listed = LeftOut(), set(files.names)
    for name in images_in(files.root, left_out):
        if name not in listed:
            left_out.add(LeftOut.NO_ANNOTATION, name)
    return left_out.names()
