"""What of a series description may be shown: the words of imaging. The rest is free text, which may name a patient."""

from __future__ import annotations

import re

HIDDEN = "…"

# Sequences, planes, contrast, kernels, regions: words as scanners write them.
VOCABULARY = """
2D 3D 4D ABDOMEN ABD ADC AFTER ANGIO AORTA ARTERIAL ASL AX AXIAL AXIALS BASE BEFORE BLADE BOLD BONE BRAIN BREAST BRAVO
CARDIAC CE CECT CHEST CINE CISS CONTRAST COR CORONAL CORR CSPINE CT CTA DCE DELAYED DERIVED DESS DIFF DIFFUSION DIXON
DSC DTI DUAL DWI DYN DYNAMIC ECHO EP2D EPI FA FAST FAT FB FFE FIELD FIESTA FINE FLAIR FLASH FLUID FOV FS FSE FSPGR FT
FUNCTIONAL GAD GD GRADIENT GRE HASTE HEAD HIGH HIP HR IN INPHASE INSP INV IR ISO KIDNEY KNEE LATE LAVA LEFT LIVER LOW
LUNG LUNGS MAG MAP MIP MPR MPRAGE MR MRA MRI MULTI NATIVE NECK NO NON NONCONTRAST OBL OBLIQUE OPP OPPOSED ORIG OUT
OUTPHASE PANCREAS PD PDW PELVIS PERF PERFUSION PET PHASE PLAIN PORTAL POST PRE PROP PROPELLER PROSTATE PROTON RECON
REFORMAT RESOLVE REST RIGHT SAG SAGITTAL SCAN SE SHOULDER SLICE SMOOTH SOFT SPACE SPAIR SPC SPGR SPINE SPIR SSFP
STANDARD STD STIR STRESS SUB SUV SWI T1 T1W T1WI T2 T2W T2WI TFE TFL THICK THIN THORAX TIRM TISSUE TOF TRA TRANS
TRANSVERSE TRUFI TSE TSPINE TURBO UPPER VENOUS VIBE VISTA VOL VOLUME WATER WITH WITHOUT WO
"""
WORDS = frozenset(VOCABULARY.split())
# b-values, thicknesses and matrices, kernels; never long enough for a number of a patient or a date.
NUMBERS = re.compile(r"B\d{1,4}|\d{1,2}(\.\d{1,2})?(MM)?|\d{1,2}X\d{1,2}(X\d{1,2})?|[HBI]\d{2}[FS]")


def shown(description: str) -> str:
    """A description with every word that is none of imaging's hidden; "" for none."""
    made: list[str] = []
    for word in re.findall(r"[A-Za-z0-9.]+", description):
        if word.upper() in WORDS or NUMBERS.fullmatch(word.upper()):
            made.append(word)
        elif made[-1:] != [HIDDEN]:
            made.append(HIDDEN)
    return " ".join(made)
