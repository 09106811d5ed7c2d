"""Archives that torch wrote (.pt2, TorchScript .pt) and that come from anywhere: what may be handed on to torch.

torch's own loaders believe what they read. ``torch.export.load`` unpickles weights, constants and sample inputs marked
so without a limit, looks the targets of nodes up by name in all of torch (``torch.os.system`` is among them), evaluates
the expressions of sizes and runs guards as Python. So a .pt2 file is read here first, with none of torch: every part is
checked against what an exported program of plain operators needs, and a new archive is made of the parts that passed;
the file itself is never opened by torch.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from voxelrt.errors import ModelError, UnsupportedError

MAX_ENTRIES = 1 << 17
MAX_TEXT_BYTES = 256 << 20  # of one JSON or source file, decompressed
MAX_DEPTH = 64
TEXT = re.compile(r"[\w.]*", re.ASCII)
TARGET = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!__)[A-Za-z0-9_]+\.(?!__)[A-Za-z0-9_]+"
    r"|torch\.ops\.aten\.__(and|or|xor|lshift|rshift)__\.(Tensor|Scalar)"
    r"|torch\.ops\.higher_order\.(cond|scan|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.(sym_(int|float|max|min|not|ite|sqrt)|_sym_sqrt)"
)
FUNCTIONS = (
    "FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|Max|Min|Add|Mul|Integer|Rational"
    "|True|False|true|false"
)
SYMBOL = r"(?:Symbol\('[suz]\w{1,12}'(?:, (?:positive|integer|nonnegative|real)=True)*\)|[suz]\d{1,6})"
EXPRESSION = re.compile(
    rf"(?:{FUNCTIONS}|Pow\({SYMBOL}, Integer\([2-4]\)\)|{SYMBOL}(?:\*\*[2-4](?![\d*]))?"
    r"|\d{1,18}(?!\d)|\*(?!\*)|[-+/(), <>=])*",
    re.ASCII,
)
CONTAINERS = frozenset((None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"))
FILES = frozenset(("aten.from_file", "aten.save", "aten.to_file"))
ELEMENT_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8, 11: 16, 12: 1, 13: 2, 28: 2}

Json = Any


def is_archive(path: Path) -> bool:
    """Whether a file begins as a zip archive does."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def read_entries(path: Path) -> dict[str, bytes]:
    """The parts of an archive by their names behind its single root folder.

    Raises
    ------
    ModelError : it is damaged, its names climb out of it, are used twice or have several roots, or it would grow to
        more than its texts can be.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_listing(path, infos)
            root = infos[0].filename.split("/", 1)[0] + "/"
            return {info.filename[len(root) :]: archive.read(info) for info in infos}
    except ModelError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path.name} cannot be read as a torch archive: it is damaged or truncated") from error
    except Exception as error:  # zlib.error and what else a decompressor throws at hostile bytes
        raise ModelError(f"{path.name} cannot be decompressed: it is damaged") from error


def _check_listing(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if not 0 < len(infos) <= MAX_ENTRIES:
        raise ModelError(f"{path.name} has {len(infos)} parts; a torch archive has 1 to {MAX_ENTRIES}")
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise ModelError(f"{path.name} has two parts of one name")
    for name in names:
        parts = name.split("/")
        if len(parts) < 2 or "" in parts or ".." in parts or "\\" in name or "\0" in name or parts[0] == ".":
            raise ModelError(
                f"{path.name} has a part whose name leads out of the archive or has no root: {name[:80]!r}"
            )
    if len({name.split("/", 1)[0] for name in names}) != 1:
        raise ModelError(f"{path.name} has several root folders; a torch archive has one")
    size = path.stat().st_size
    for info in infos:
        stored = info.compress_type == zipfile.ZIP_STORED
        if info.file_size > (size if stored else MAX_TEXT_BYTES):
            raise ModelError(f"{path.name}: a part says it has {info.file_size} bytes, more than can be in the file")
    if sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED) > 2 * MAX_TEXT_BYTES:
        raise ModelError(f"{path.name}: its compressed parts would grow to more than {2 * MAX_TEXT_BYTES} bytes")
    if sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED) > size:
        raise ModelError(f"{path.name}: its parts lie on top of each other")


def archive_of(entries: dict[str, bytes]) -> io.BytesIO:
    """A new archive of these parts, as torch reads one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    stream.seek(0)
    return stream


def exported_program(path: Path) -> io.BytesIO:
    """A .pt2 file as an archive that torch may load: an exported program of operators of ATen, tensors and sizes.

    Metadata, guards and sample inputs are left out.

    Raises
    ------
    ModelError : damaged, contradictory, or made to run code. UnsupportedError : operators of other libraries, pickled
        parts, compiled libraries; all are named.
    """
    entries = read_entries(path)
    if "models/model.json" not in entries:
        raise ModelError(
            f"{path.name} is no exported program: it has no models/model.json (torch.export.save writes it)"
        )
    refused = sorted({n.split("/")[1] for n in entries if n.startswith("data/") and n.split("/")[1] == "aotinductor"})
    if refused:
        raise UnsupportedError(f"{path.name} holds compiled libraries (AOTInductor): save the exported program instead")
    program = _program(_json(entries["models/model.json"], "models/model.json"))
    kept = {"models/model.json": json.dumps(program).encode(), "data/sample_inputs/model.pt": b""}
    for folder, kind in (("weights", "weight"), ("constants", "tensor")):
        name = f"data/{folder}/model_{folder}_config.json"
        if name not in entries:
            raise UnsupportedError(
                f"{path.name} keeps its {folder} as a pickle, the form of torch before 2.8: save it with a newer torch"
            )
        config = _json(entries[name], name)
        for record in _records(config, folder, kind, entries):
            kept[f"data/{folder}/{record}"] = entries[f"data/{folder}/{record}"]
        kept[name] = entries[name]
    kept |= {"archive_format": b"pt2", "archive_version": b"0", "version": b"3\n", "byteorder": b"little"}
    if entries.get("byteorder", b"little") != b"little":
        raise UnsupportedError(f"{path.name} was written on a big-endian machine")
    return archive_of(kept)


def _json(data: bytes, name: str) -> Json:
    if len(data) > MAX_TEXT_BYTES:
        raise ModelError(f"{name} has {len(data)} bytes; at most {MAX_TEXT_BYTES} are read")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not JSON") from error


def _program(program: Json) -> Json:
    """The program without metadata and guards, everything else checked. Raises ModelError, UnsupportedError."""
    graph = program.get("graph_module") if isinstance(program, dict) else None
    if not isinstance(graph, dict) or not isinstance(graph.get("graph"), dict):
        raise ModelError("the exported program has no graph")
    if graph.get("treespec_namedtuple_fields"):
        raise UnsupportedError(
            "the exported program takes or gives named tuples: only tensors, tuples, lists and dicts are read"
        )
    program = {**program, "guards_code": []}
    refused: list[str] = []
    _check(program, refused, 0)
    if refused:
        raise UnsupportedError(f"{len(refused)} nodes of the exported program cannot be imported:", refused)
    return program


def _check(value: Json, refused: list[str], depth: int, key: str = "") -> None:
    if depth > MAX_DEPTH:
        raise ModelError("the exported program is nested too deeply")
    if isinstance(value, dict):
        for name in list(value):
            if name == "metadata":
                value[name] = {}
            elif ("custom_obj" in name or "opaque" in name) and value[name] != {}:
                raise UnsupportedError("the exported program holds objects of another library")
            elif not TEXT.fullmatch(name):
                raise ModelError(f"the exported program has a name that no program has: {name[:60]!r}")
            _check(value[name], refused, depth + 1, name)
    elif isinstance(value, list):
        for item in value:
            _check(item, refused, depth + 1, key)
    elif isinstance(value, str):
        _check_text(value, key, refused)


def _check_text(value: str, key: str, refused: list[str]) -> None:
    if key in ("target", "as_operator"):
        if not TARGET.fullmatch(value) or any(word in value for word in FILES):
            refused.append(f"{value[:120]}: not an operator of ATen that can be imported")
    elif key == "expr_str":
        if len(value) > 2000 or not EXPRESSION.fullmatch(value):
            raise ModelError(f"the exported program has a size that is no expression of sizes: {value[:60]!r}")
    elif key in ("in_spec", "out_spec"):
        if value:
            _check_tree(_json(value.encode(), key), 0)
    elif key not in ("as_string", "as_strings", "torch_version") and not TEXT.fullmatch(value):
        raise ModelError(f"the exported program has a text that no program has, {key}: {value[:60]!r}")


def _check_tree(tree: Json, depth: int) -> None:
    """The containers of inputs and outputs: tuples, lists and dicts of tensors, and nothing that names a class."""
    if isinstance(tree, list):
        if len(tree) != 2 or tree[0] != 1:
            raise ModelError("the exported program describes its inputs in an unknown way")
        _check_tree(tree[1], depth + 1)
        return
    if not isinstance(tree, dict) or depth > MAX_DEPTH or tree.get("type") not in CONTAINERS:
        raise UnsupportedError(
            "the exported program takes or gives objects: only tensors, tuples, lists and dicts are read"
        )
    context = tree.get("context")
    keys = _json(context.encode(), "context") if isinstance(context, str) else context
    if keys is not None and not (isinstance(keys, list) and all(isinstance(k, str | int) for k in keys)):
        raise ModelError("the exported program describes its inputs in an unknown way")
    for child in tree.get("children_spec") or ():
        _check_tree(child, depth + 1)


def _records(config: Json, folder: str, kind: str, entries: dict[str, bytes]) -> Iterator[str]:
    """The raw records that a payload's configuration names, each large enough for the tensors that it holds."""
    listed = config.get("config") if isinstance(config, dict) else None
    if not isinstance(listed, dict):
        raise ModelError(f"the {folder} of the exported program are not described")
    for name, entry in listed.items():
        record, meta = (entry.get("path_name"), entry.get("tensor_meta")) if isinstance(entry, dict) else (None, None)
        if not isinstance(record, str) or not re.fullmatch(rf"{kind}_\d+", record) or entry.get("use_pickle"):
            raise UnsupportedError(f"{name[:80]!r} of the {folder} is pickled or no tensor: it is not read")
        if f"data/{folder}/{record}" not in entries or not isinstance(meta, dict):
            raise ModelError(f"{name[:80]!r} of the {folder} is missing from the file")
        _check_tensor(name, meta, len(entries[f"data/{folder}/{record}"]))
        yield record


def _check_tensor(name: str, meta: dict[str, Any], stored: int) -> None:
    """Raise ModelError unless a tensor lies within its record."""
    try:
        element = ELEMENT_BYTES[meta["dtype"]]
        sizes = [_whole(size) for size in meta["sizes"]]
        strides = [_whole(stride) for stride in meta["strides"]]
        first = _whole(meta["storage_offset"])
        device = meta["device"]["type"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"the tensor {name[:80]!r} has no sizes or an unknown element type") from error
    if device != "cpu":
        raise UnsupportedError(
            f"the tensor {name[:80]!r} lies on {device!r}: move the module to the CPU and export again"
        )
    if len(sizes) != len(strides):
        raise ModelError(f"the tensor {name[:80]!r} has {len(sizes)} sizes and {len(strides)} strides")
    count = math.prod(sizes)
    last = first + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) if count else -1
    if stored % element or (last + 1) * element > stored or count * element > stored:
        raise ModelError(f"the tensor {name[:80]!r} asks for {count * element} bytes; the file has {stored}")


def _whole(value: Json) -> int:
    number = value["as_int"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 48:
        raise TypeError("not a size")
    return number


def script(path: Path) -> io.BytesIO:
    """A TorchScript file as an archive that torch may load.

    Raises
    ------
    ModelError : damaged, a plain pickle (which would run code when it is loaded), or a program that touches files.
    UnsupportedError : operators of other libraries.
    """
    entries = read_entries(path)
    sources = {name: data for name, data in entries.items() if name.startswith("code/") and name.endswith(".py")}
    if not sources or "data.pkl" not in entries or "constants.pkl" not in entries:
        raise ModelError(
            f"{path.name} holds pickled objects or weights alone, no network: loading a pickle would run what it says. "
            "Save the module with torch.export.save (.pt2), or export it to ONNX"
        )
    for data in sources.values():
        text = data.decode("utf-8", "replace")
        touched = re.search(r"\b(?:torch\.(?:from_file|save|load)|aten::(?:from_file|save))\b", text)
        if touched:
            raise ModelError(f"{path.name} is a program that touches files ({touched.group()}): it is not loaded")
        foreign = sorted({m for m in re.findall(r"\bops\.(\w+)\.", text) if m not in ("prim", "aten")})
        if foreign:
            raise UnsupportedError(f"{path.name} uses operators of other libraries: {', '.join(foreign)}")
    kept = {n: d for n, d in entries.items() if not n.endswith(".debug_pkl") and not n.startswith("traced_inputs")}
    return archive_of(kept)
