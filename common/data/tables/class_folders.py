"""One folder for each diagnosis, with its images."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePath

from common.data.image import Location
from common.data.tables.cells import without_ending
from common.data.tables.diagnoses import SYNONYMS, code_of
from common.data.tables.findings import Findings
from common.data.tables.folder import Folder, is_zip
from common.data.tables.layout import Reading, Record
from common.task import Task


class ClassFolders:
    """Folders, here or further inside, of which two or more are named by diagnoses.

    Parameters
    ----------
    codes : codes by the names of folders in lower case.
    task : the diagnoses; None for those that occur.
    """

    name = "one folder per class"

    def __init__(self, codes: Mapping[str, str] = SYNONYMS, task: Task | None = None) -> None:
        self._codes, self._task = codes, task

    def recognises(self, folder: Folder) -> bool:
        """Tell whether images lie in folders of two diagnoses or more."""
        groups = {_class(location, folder) for location in folder.found.images}
        named = {code_of(group, self._codes) for group in groups}
        return len(named - {""}) > 1

    def read(self, folder: Folder, findings: Findings) -> Reading:
        """Return a row for each image; images of one name in two folders get both names."""
        images = folder.found.images
        names = Counter(without_ending(location.member) for location in images)
        several = max(names.values(), default=0) > 1
        files: dict[str, Location] = {}
        rows: dict[str, list[str]] = defaultdict(list)
        for location in images:
            group, name = _class(location, folder), without_ending(location.member)
            name = f"{group}_{name}" if several else name
            rows[name].append(group)
            files[name] = location
        records = [
            Record(f"folder {group}", name, group) for name, all_ in rows.items() for group in all_
        ]
        return Reading(records, [], self._codes, self._task, files)


def _class(location: Location, folder: Folder) -> str:
    """Return the name of the folder in which an image lies, "" for the data folder itself."""
    if inside := PurePath(location.member.replace("\\", "/")).parent.name:
        return inside
    container = location.container
    if container == folder.path:
        return ""
    return container.stem if is_zip(container) else container.name
