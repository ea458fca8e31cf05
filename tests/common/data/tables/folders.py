"""Small data folders in the forms in which people have them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

CODES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """Write different images of 80x64 pixels; names have their endings."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        pixels = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(folder / name)


def write(folder: Path, tables: Mapping[str, str], pictures: Mapping[str, Iterable[str]]) -> Path:
    """Write tables by name, and pictures by folder; return the folder."""
    for inside, names in pictures.items():
        write_pictures(folder / inside, names)
    for name, text in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def numbered(count: int, ending: str = ".jpg", stem: str = "ISIC_{:07}") -> list[str]:
    return [stem.format(number) + ending for number in range(count)]


def ham10000(folder: Path) -> Path:
    rows = "".join(
        f"HAM_{i // 2:07},ISIC_{i:07},{CODES[i // 2 % 7]},histo,{40 + i}.0,male,back,rosendahl\n"
        for i in range(14)
    )
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n"
    return write(
        folder,
        {"HAM10000_metadata.csv": header + rows},
        {"HAM10000_images_part_1": numbered(14)},
    )


def isic2018(folder: Path, groupings: bool = True) -> Path:
    codes = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    truth = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n" + "".join(
        f"ISIC_{i:07}," + ",".join("1.0" if i // 2 == j else "0.0" for j in range(7)) + "\n"
        for i in range(14)
    )
    lesions = "image,lesion_id,diagnosis_confirm_type\n" + "".join(
        f"ISIC_{i:07},HAM_{i // 2:07},histopathology\n" for i in range(14)
    )
    assert set(codes) == set(CODES)
    tables = {"ISIC2018_Task3_Training_GroundTruth.csv": truth}
    if groupings:
        tables["ISIC2018_Task3_Training_LesionGroupings.csv"] = lesions
    return write(folder, tables, {"ISIC2018_Task3_Training_Input": numbered(14)})


def isic2019(folder: Path) -> Path:
    """Eight usable rows, one of each class; one all zero, one with two ones, one UNK."""
    marks = [[i] for i in range(8)] + [[], [0, 1], [8]]
    names = [f"ISIC_{i:07}" + "_downsampled" * (i % 3 == 0) for i in range(len(marks))]
    truth = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n" + "".join(
        name + "," + ",".join(str(float(j in ones)) for j in range(9)) + "\n"
        for name, ones in zip(names, marks, strict=True)
    )
    about = "image,age_approx,anatom_site_general,lesion_id,sex\n" + "".join(
        f"{name},55.0,anterior torso,{f'BCN_{i:07}' if i % 2 else ''},female\n"
        for i, name in enumerate(names)
    )
    return write(
        folder,
        {
            "ISIC_2019_Training_GroundTruth.csv": truth,
            "ISIC_2019_Training_Metadata.csv": about,
        },
        {"ISIC_2019_Training_Input": [f"{name}.jpg" for name in names]},
    )


def isic2020(folder: Path) -> Path:
    header = (
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,"
        "diagnosis,benign_malignant,target\n"
    )
    rows = (
        "ISIC_0000000,IP_1,male,45.0,head/neck,unknown,benign,0\n"
        "ISIC_0000001,IP_1,male,45.0,torso,nevus,benign,0\n"
        "ISIC_0000002,IP_1,male,50.0,torso,melanoma,malignant,1\n"
        "ISIC_0000003,IP_2,female,,,melanoma,malignant,1\n"
        "ISIC_0000004,IP_2,female,,,melanoma,malignant,0\n"
    )
    pictures = {"jpeg/train": numbered(5)}
    return write(folder, {"train.csv": header + rows}, pictures)


def archive_new(folder: Path) -> Path:
    header = (
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,anatom_site_special,"
        "concomitant_biopsy,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5,"
        "diagnosis_confirm_type,lesion_id,patient_id,sex\n"
    )
    rows = (
        'ISIC_0000000,"Hospital, A",CC-0,85+,head/neck,,True,Malignant,"Malignant melanocytic '
        'proliferations (Melanoma)","Melanoma, NOS",,,histopathology,IL_1,IP_1,male\n'
        'ISIC_0000001,"Hospital, A",CC-0,50,anterior torso,,,Benign,Benign melanocytic '
        'proliferations,Nevus,"Nevus, Atypical, Dysplastic, or Clark",,,,IP_1,male\n'
        'ISIC_0000002,"Hospital, A",CC-0,,,,,Benign,Benign soft tissue proliferations,'
        "Acrochordon,,,,,,\n"
        'ISIC_0000003,"Hospital, B",CC-0,60,,,,Benign,,,,,,,,female\n'
        'ISIC_0000004,"Hospital, B",CC-0,60,,,,Malignant,Malignant epidermal proliferations,'
        '"Squamous cell carcinoma, NOS",,,,IL_2,,female\n'
    )
    return write(folder, {"metadata.csv": header + rows}, {".": numbered(5)})


def archive_old(folder: Path) -> Path:
    header = (
        "isic_id,attribution,copyright_license,age_approx,anatom_site_general,benign_malignant,"
        "diagnosis,diagnosis_confirm_type,image_type,sex\n"
    )
    rows = (
        "ISIC_0000000,HAM,CC-BY-NC,55,head/neck,benign,nevus,,dermoscopic,male\n"
        "ISIC_0000001,HAM,CC-BY-NC,55,torso,malignant,melanoma,histopathology,dermoscopic,male\n"
        "ISIC_0000002,HAM,CC-BY-NC,,,benign,seborrheic keratosis,,dermoscopic,\n"
    )
    return write(folder, {"metadata.csv": header + rows}, {"ISIC-images": numbered(3)})


def pad_ufes(folder: Path) -> Path:
    header = (
        "patient_id,lesion_id,smoke,age,region,gender,itch,img_id,diagnostic,diameter_1,biopsed\n"
    )
    rows = "".join(
        f"PAT_{i},{100 + i},False,{50 + i},FACE,FEMALE,True,PAT_{i}_{100 + i}_{7 * i}.png,"
        f"{code},,{i % 2 == 0}\n"
        for i, code in enumerate(("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"))
    )
    names = [f"PAT_{i}_{100 + i}_{7 * i}.png" for i in range(6)]
    return write(folder, {"metadata.csv": header + rows}, {"imgs_part_1/imgs_part_1": names})


def class_folders(folder: Path) -> Path:
    pictures = {code: numbered(2, stem=f"{code}_{{}}") for code in CODES}
    return write(folder, {}, {**pictures, "wart": ["wart_0.jpg"]})
