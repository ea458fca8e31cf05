"""From records of any layout to images, with all that is wrong with them."""

from collections.abc import Mapping
from typing import NamedTuple

from common.data.image import Image, Location
from common.data.tables import lesions
from common.data.tables.cells import age, present, spreadsheet_number, without_ending, word
from common.data.tables.diagnoses import code_of
from common.data.tables.files import Files
from common.data.tables.findings import (
    GROUP_BESIDE_DIAGNOSES,
    IMAGE_AS_LESION,
    LOOSE_AGE,
    LOOSE_DIAGNOSIS,
    LOOSE_FILE,
    LOOSE_ID,
    NO_DIAGNOSIS,
    NO_IMAGE,
    NO_IMAGE_ID,
    NO_ROW,
    ODD_AGE,
    PATIENT_AS_LESION,
    ROW_TWICE,
    SPREADSHEET_ID,
    UNKNOWN_DIAGNOSIS,
    Findings,
)
from common.data.tables.layout import Reading, Record
from common.data.tables.spellings import legible, skin_tone
from common.task import BINARY, Task, usual_task


class Placed(NamedTuple):
    """An image, and the file and row that it is from."""

    image: Image
    place: str


class Content(NamedTuple):
    """What the rows and the files of a folder make together.

    Attributes
    ----------
    rows : those that can be used, by image.
    left_out : images whose diagnosis cannot be used; it is the table's own text.
    files : where images lie, by id; also those without a row.
    """

    rows: list[Placed]
    left_out: tuple[Image, ...]
    files: dict[str, Location]
    task: Task


def content(reading: Reading, files: Files, findings: Findings) -> Content:
    """Turn records into images; those that cannot be used are named and left out."""
    reader = _Reader(reading, findings)
    rows = [
        placed for record in legible(reading.records, findings) if (placed := reader.placed(record))
    ]
    rows = _once(rows, findings)
    if reading.task is None:
        rows = _one_kind(rows, reader, findings)
    for image, place in rows:
        if lesions.unknown(image):
            kind = PATIENT_AS_LESION if image.patient_id else IMAGE_AS_LESION
            findings.add(kind, f"{image.image_id} ({place})")
    codes = {placed.image.dx for placed in rows}
    task = reading.task or usual_task(codes)
    rows.sort(key=lambda placed: placed.image.image_id)
    located = _located(rows, reading.pattern, files, reader.left_out, findings)
    return Content(rows, tuple(reader.undiagnosed), located, task)


class _Reader:
    """Reads one record after the other."""

    def __init__(self, reading: Reading, findings: Findings) -> None:
        self._reading, self._findings = reading, findings
        self.left_out = {without_ending(name) for name in reading.left_out}
        self.undiagnosed: list[Image] = []

    def placed(self, record: Record) -> Placed | None:
        name = self._image_id(record)
        if not name:
            return None
        code = self._code(record, name)
        image = self._image(record, name, code or present(record.diagnosis))
        if not code:
            self.left_out.add(name)
            self.undiagnosed.append(image)
            return None
        return Placed(image, record.place)

    def _image(self, record: Record, name: str, dx: str) -> Image:
        patient = self._id(record.patient, record)
        return Image(
            image_id=name,
            lesion_id=self._lesion(record, patient, name, dx),
            dx=dx,
            dx_type=present(record.dx_type),
            age=self._age(record, name),
            sex=word(record.sex),
            localization=word(record.localization),
            source=present(record.source),
            split=present(record.split),
            patient_id=patient,
            skin_tone=skin_tone(record, self._findings),
        )

    def _image_id(self, record: Record) -> str:
        text = self._id(record.image, record)
        name = without_ending(text)
        if not present(name):
            self._findings.add(NO_IMAGE_ID, record.place)
            return ""
        if name != text:
            self._findings.add(LOOSE_ID, f"{text} ({record.place})")
        return name

    def _id(self, text: str, record: Record) -> str:
        text = present(text)
        if spreadsheet_number(text):
            self._findings.add(SPREADSHEET_ID, f"{text} ({record.place})")
        return text

    def _code(self, record: Record, name: str) -> str:
        text, task = record.diagnosis.strip(), self._reading.task
        code = code_of(text, self._reading.codes)
        if code and (task is None or code in task.codes):
            if code != text:
                self._findings.add_once(LOOSE_DIAGNOSIS, f"{text} as {code}")
            return code
        if present(text):
            self._findings.add(UNKNOWN_DIAGNOSIS, f"{name} {text} ({record.place})")
        else:
            self._findings.add(NO_DIAGNOSIS, f"{name} ({record.place})")
        return ""

    def _lesion(self, record: Record, patient: str, name: str, dx: str) -> str:
        if lesion := self._id(record.lesion, record):
            return lesion
        return lesions.of_patient(patient, dx) if patient else lesions.of_image(name)

    def _age(self, record: Record, name: str) -> float | None:
        years, loose = age(record.age)
        if loose:
            kind = ODD_AGE if years is None else LOOSE_AGE
            self._findings.add(kind, f"{record.age} ({name}, {record.place})")
        return years


def _once(rows: list[Placed], findings: Findings) -> list[Placed]:
    """Leave out rows that say the same as one before."""
    first: dict[Image, str] = {}
    for image, place in rows:
        if image in first:
            findings.add(ROW_TWICE, f"{image.image_id} ({first[image]}, {place})")
        first.setdefault(image, place)
    return [Placed(image, place) for image, place in first.items()]


def _one_kind(rows: list[Placed], reader: _Reader, findings: Findings) -> list[Placed]:
    """Leave out rows that say benign or malignant where others say which diagnosis."""
    groups = [placed for placed in rows if placed.image.dx in BINARY.codes]
    if len(groups) == len(rows):
        return rows
    for image, place in groups:
        findings.add(GROUP_BESIDE_DIAGNOSES, f"{image.image_id} {image.dx} ({place})")
        reader.left_out.add(image.image_id)
        reader.undiagnosed.append(image)
    return [placed for placed in rows if placed.image.dx not in BINARY.codes]


def _located(
    rows: list[Placed],
    pattern: str,
    files: Files,
    left_out: set[str],
    findings: Findings,
) -> dict[str, Location]:
    located: dict[str, Location] = {}
    used = set()
    for image, place in rows:
        name, exact = files.find(pattern.replace("{image}", image.image_id))
        if not name:
            findings.add(NO_IMAGE, f"{image.image_id} ({place})")
            continue
        if not exact:
            findings.add(LOOSE_FILE, f"{image.image_id} as {name} ({place})")
        located[image.image_id] = files.by_name[name]
        used.add(name)
    found = {name: files.find(pattern.replace("{image}", name)).name for name in left_out}
    located |= {name: files.by_name[file] for name, file in found.items() if file}
    used.update(found.values())
    strays = _without_row(files.by_name, used)
    findings.add(NO_ROW, *strays)
    return {**{name: files.by_name[name] for name in strays}, **located}


def _without_row(files: Mapping[str, Location], used: set[str]) -> list[str]:
    return sorted(files.keys() - used)
